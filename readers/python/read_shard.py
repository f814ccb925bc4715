#!/usr/bin/env python3
"""Print the rows of a shard as JSON lines: python read_shard.py SHARD

A second reader of the format in docs/format.md, over the stock Avro library
fastavro. It puts rows together and checks every row's CRC-8, the order of keys
and the totals of the end mark. A line is

    {"lane":0,"key":[VALUE,...],"cells":[[NAME,TIMESTAMP,VALUE],...]}

with values {"integer":"1"}, {"double":"3ff0000000000000"} (the bits),
{"boolean":true}, {"string":...} or {"binary":...}; names, strings and binaries
are base64, since they may hold any bytes. Raw rows are {"lane":0,"raw":BASE64}.
A piece of a row is a line of its own, with "continues" or "unfinished".
"""

import base64
import itertools
import json
import struct
import sys

import fastavro

CHUNK = 1 << 20
INTEGER, DOUBLE, BOOLEAN, STRING, BLOB = 0, 1, 2, 3, 7
KEY_TYPES = {"integer": INTEGER, "string": STRING, "binary": BLOB}

CRC = []
for byte in range(256):
    for _ in range(8):
        byte = (byte << 1 ^ 0x07) & 0xFF if byte & 0x80 else byte << 1
    CRC.append(byte)
def crc8(data, crc=0):
    for byte in data:
        crc = CRC[crc ^ byte]
    return crc

def signed(n):
    return (n + (1 << 63)) % (1 << 64) - (1 << 63)

def deltas(numbers):
    total = 0
    for n in numbers:
        total = signed(total + n)
        yield total

def joined(entries):
    """Values of which the long ones go on over several entries."""
    entries = iter(entries)
    for entry in entries:
        value = entry
        while len(entry) == CHUNK:
            entry = next(entries)
            value += entry
        yield value

def column_values(column, kind):
    return {INTEGER: lambda: deltas(column["integers"]), DOUBLE: lambda: iter(column["doubles"]),
            BOOLEAN: lambda: iter(column["booleans"])}.get(kind, lambda: joined(column["values"]))()

def keys(columns, schema):
    def values(column, kind):
        if kind == INTEGER:
            yield from deltas(column["integers"])
            return
        before = b""
        for shared, rest in zip(column["shared"] or itertools.repeat(0), joined(column["values"])):
            before = before[:shared] + rest
            yield before
    kinds = [KEY_TYPES[c["type"]] for c in schema]
    return zip(*([(k, v) for v in values(c, k)] for c, k in zip(columns, kinds)))

def group_rows(group):
    columns = [(c["name"], c["type"], iter(c["counts"] or itertools.repeat(1)), iter(c["times"] or itertools.repeat(0)),
                column_values(c, c["type"])) for c in group["columns"]]
    for base in deltas(group["times"]):
        yield [(name, signed(base + next(times)), kind, next(values))
               for name, kind, counts, times, values in columns for _ in range(next(counts))]

def mixed_rows(mixed):
    names, types = list(joined(mixed["names"])), mixed["types"]
    last, integers, columns, times = [0] * len(names), iter(mixed["integers"]), iter(mixed["columns"]), deltas(mixed["times"])
    others = {DOUBLE: iter(mixed["doubles"]), BOOLEAN: iter(mixed["booleans"])}
    values = joined(mixed["values"])
    for count in mixed["counts"]:
        row = []
        for _ in range(count):
            c = next(columns)
            if types[c] == INTEGER:
                value = last[c] = signed(last[c] + next(integers))
            else:
                value = next(others.get(types[c], values))
            row.append((names[c], next(times), types[c], value))
        yield row

def payload(kind, value):
    if kind in (INTEGER, DOUBLE):
        return bytes([kind]) + struct.pack("<q" if kind == INTEGER else "<d", value)
    if kind == BOOLEAN:
        return bytes([kind, value])
    return bytes([kind]) + struct.pack("<I", len(value)) + value

def row_checksum(schema, key, cells):
    parts = [crc8(c["name"].encode() + payload(k, v)) for c, (k, v) in zip(schema, key)]
    parts += [crc8(name + payload(k, v) + struct.pack("<q", time)) for name, time, k, v in cells]
    return crc8(parts + [0])

def b64(data):
    return base64.b64encode(data).decode()

def value_json(kind, value):
    if kind == INTEGER:
        return {"integer": str(value)}
    if kind == DOUBLE:
        return {"double": struct.pack(">d", value).hex()}
    if kind == BOOLEAN:
        return {"boolean": value}
    return {"string" if kind == STRING else "binary": b64(value)}

def block_rows(block, schema):
    """The rows of a record: (key, cells), or bytes if they are raw."""
    places = {n: group_rows(g) for n, g in enumerate(block["groups"])}
    places[-1], raw, key = mixed_rows(block["mixed"]), joined(block["raw"]), keys(block["keys"], schema)
    order = block["order"] or [0] * block["rows"]
    for place, checksum in zip(order, block["checksums"], strict=True):
        if place == -2:
            row = next(raw)
            assert row[-1] == checksum, "a raw row's checksum"
            yield row
            continue
        row = next(key), next(places[place])
        assert row_checksum(schema, *row) == checksum, f"the checksum of row {row[0]}"
        yield row

def read(file, out):
    shard = fastavro.reader(file)
    header = json.loads(shard.metadata["tablevault.shard"])
    assert header["format"] == 2, f"format {header['format']}: this reads 2"
    schema, total, blocks, last, end = header["key"], 0, 0, {}, None
    for block in shard:
        assert end is None, "a record after the end mark"
        if block["kind"] == 1:
            end = block
            continue
        blocks += 1
        continues, unfinished = block["flags"] & 1, block["flags"] & 2
        for row in block_rows(block, schema):
            line = {"lane": block["lane"]}
            if isinstance(row, bytes):
                line["raw"] = b64(row)
            else:
                values = [v for _, v in row[0]]
                before = last.get(block["lane"])
                assert before is None or before < values or continues and before == values, f"the order of key {values}"
                last[block["lane"]] = values
                line["key"] = [value_json(*v) for v in row[0]]
                line["cells"] = [[b64(name), time, value_json(k, v)] for name, time, k, v in row[1]]
            line.update({k: True for k, set in (("continues", continues), ("unfinished", unfinished)) if set})
            print(json.dumps(line, separators=(",", ":")), file=out)
        total += 0 if unfinished else block["rows"]
    assert end is not None, "the shard has no end mark: it was cut"
    assert (end["rows"], end["blocks"]) == (total, blocks), "the end mark's totals"

if __name__ == "__main__":
    with open(sys.argv[1], "rb") as shard_file:
        read(shard_file, sys.stdout)
