#!/usr/bin/env python3
"""Check documents of a vault and print their bodies: python read_document.py VAULT NAME...

VAULT is a folder, NAME the name of an object below it, such as
manifests/local/prod/orders/20261120T021400Z-275d4a8f.json. Only the standard
library is needed.
"""

import hashlib
import json
import pathlib
import sys

# What stands behind the bytes that the checksum is over.
TAIL = len(',"sha256":"') + 64 + len('"}\n')


def read_document(data, name):
    """The kind and the body of the document that stands under a name."""
    signed, tail = data[:-TAIL], data[-TAIL:]
    want = ',"sha256":"%s"}\n' % hashlib.sha256(signed).hexdigest()
    if tail != want.encode():
        raise ValueError("its checksum is not that of its bytes: it was changed, or cut")
    document = json.loads(data)
    if document["format"] != 2:
        raise ValueError("format %d: this reads 2" % document["format"])
    if document["name"] != name:
        raise ValueError("it was written as %s" % document["name"])
    return document["document"], document["body"]


def main(vault, *names):
    for name in names:
        try:
            kind, body = read_document(pathlib.Path(vault, name).read_bytes(), name)
        except ValueError as err:
            sys.exit("%s: %s" % (name, err))
        print(json.dumps({"document": kind, "body": body}, ensure_ascii=False, separators=(",", ":")))


if __name__ == "__main__":
    main(*sys.argv[1:])
