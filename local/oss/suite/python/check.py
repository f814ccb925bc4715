"""The official Python SDK against the local OSS, with signatures of both versions.

OSS_ENDPOINT=http://127.0.0.1:1234 OSS_REGION=local OSS_ACCESS_KEY_ID=… OSS_ACCESS_KEY_SECRET=… python check.py
"""
import os
import sys
import tempfile
import traceback
import urllib.request

import oss2
from oss2.credentials import StaticCredentialsProvider

ENDPOINT, REGION = os.environ['OSS_ENDPOINT'], os.environ['OSS_REGION']
ID, SECRET = os.environ['OSS_ACCESS_KEY_ID'], os.environ['OSS_ACCESS_KEY_SECRET']
MB = 1 << 20
failed = 0


def check(name, step):
    global failed
    try:
        step()
        print('PASS  python ' + name, flush=True)
    except Exception:
        failed += 1
        print('FAIL  python ' + name, flush=True)
        traceback.print_exc()


def same(got, want):
    assert got == want, '%r, want %r' % (got, want)


def refused(error, call):
    try:
        call()
    except error as e:
        return e
    raise AssertionError('it was not refused')


def run(version, auth, **more):
    name = 'python-' + version
    bucket = oss2.Bucket(auth, ENDPOINT, name, **more)
    service = oss2.Service(auth, ENDPOINT, **more)

    def buckets():
        bucket.create_bucket(oss2.BUCKET_ACL_PRIVATE)
        same([b.name for b in oss2.BucketIterator(service, prefix=name)], [name])
        info = bucket.get_bucket_info()
        same((info.name, info.acl.grant, info.storage_class, info.owner.id), (name, 'private', 'Standard', '0'))
        same(bucket.get_bucket_acl().acl, 'private')
        same(bucket.get_bucket_location().location, 'oss-' + REGION)
        same(bucket.get_bucket_versioning().status, None)
        missing = oss2.Bucket(auth, ENDPOINT, 'no-such-bucket', **more)
        refused(oss2.exceptions.NoSuchBucket, missing.get_bucket_info)
        refused(oss2.exceptions.NoSuchBucket, missing.get_bucket_lifecycle)

    def objects():
        key = 'a/é b+c.txt'
        put = bucket.put_object(key, 'content', headers={'x-oss-meta-color': 'red', 'Content-Type': 'text/x'})
        got = bucket.get_object(key)
        same(got.read(), b'content')
        same((got.headers['x-oss-meta-color'], got.content_type), ('red', 'text/x'))
        assert got.client_crc == got.server_crc
        same(bucket.get_object(key, byte_range=(1, 3)).read(), b'ont')
        head = bucket.head_object(key)
        same((head.content_length, head.etag, head.object_type), (7, put.etag, 'Normal'))
        same(bucket.get_object_meta(key).content_length, 7)
        same(bucket.get_object_acl(key).acl, 'default')
        assert bucket.object_exists(key) and not bucket.object_exists('none')
        refused(oss2.exceptions.NoSuchKey, lambda: bucket.get_object('none'))
        refused(oss2.exceptions.NotModified, lambda: bucket.get_object(key, headers={'If-None-Match': '"' + put.etag + '"'}))
        later = oss2.http_date(head.last_modified + 1)
        earlier = oss2.http_date(head.last_modified - 1)
        refused(oss2.exceptions.NotModified, lambda: bucket.get_object(key, headers={'If-Modified-Since': later}))
        same(bucket.get_object(key, headers={'If-Modified-Since': earlier, 'If-Unmodified-Since': later}).read(), b'content')
        refused(oss2.exceptions.PreconditionFailed, lambda: bucket.get_object(key, headers={'If-Unmodified-Since': earlier}))
        refused(oss2.exceptions.PreconditionFailed, lambda: bucket.get_object(key, headers={'If-Match': '"0"'}))
        refused(oss2.exceptions.ServerError, lambda: bucket.put_object(key, 'x', headers={'x-oss-forbid-overwrite': 'true'}))

    def copies():
        bucket.put_object('from', b'x' * 300, headers={'x-oss-meta-color': 'red'})
        bucket.copy_object(name, 'from', 'to')
        same(bucket.head_object('to').headers['x-oss-meta-color'], 'red')
        bucket.copy_object(name, 'from', 'to', headers={'x-oss-metadata-directive': 'REPLACE', 'x-oss-meta-color': 'blue'})
        got = bucket.get_object('to')
        same((got.read(), got.headers['x-oss-meta-color']), (b'x' * 300, 'blue'))

    def uploads():
        with tempfile.TemporaryDirectory() as folder:
            source, target = os.path.join(folder, 'source'), os.path.join(folder, 'target')
            content = os.urandom(2 * MB + 17)
            with open(source, 'wb') as f:
                f.write(content)
            store = oss2.ResumableStore(root=folder)
            oss2.resumable_upload(bucket, 'big', source, store=store, multipart_threshold=MB, part_size=MB // 2, num_threads=2)
            down = oss2.ResumableDownloadStore(root=folder)
            oss2.resumable_download(bucket, 'big', target, store=down, multiget_threshold=MB, part_size=MB // 2, num_threads=2)
            with open(target, 'rb') as f:
                assert f.read() == content
        upload = bucket.init_multipart_upload('copied').upload_id
        parts = []
        for number, (first, last) in enumerate([(0, MB - 1), (MB, 2 * MB + 16)], 1):
            part = bucket.upload_part_copy(name, 'big', (first, last), 'copied', upload, number)
            parts.append(oss2.models.PartInfo(number, part.etag))
        listed = list(oss2.PartIterator(bucket, 'copied', upload))
        same([p.size for p in listed], [MB, MB + 17])
        assert all(p.last_modified > 1.6e9 for p in listed)
        same([(u.key, u.upload_id) for u in oss2.MultipartUploadIterator(bucket)], [('copied', upload)])
        bucket.complete_multipart_upload('copied', upload, parts)
        assert bucket.get_object('copied').read() == content
        left = bucket.init_multipart_upload('left').upload_id
        bucket.abort_multipart_upload('left', left)

    def lists():
        for n in range(7):
            bucket.put_object('list/%d/x' % n, str(n))
        keys = ['list/%d/x' % n for n in range(7)]
        same([o.key for o in oss2.ObjectIterator(bucket, prefix='list/', max_keys=3)], keys)
        same([o.key for o in oss2.ObjectIteratorV2(bucket, prefix='list/', max_keys=3)], keys)
        folders = [(o.key, o.is_prefix()) for o in oss2.ObjectIterator(bucket, prefix='list/', delimiter='/', max_keys=3)]
        same(folders, [('list/%d/' % n, True) for n in range(7)])
        first = bucket.list_objects('list/', max_keys=1).object_list[0]
        same((first.size, first.type, first.storage_class, first.owner.id), (1, 'Normal', 'Standard', '0'))
        same([v.versionid for v in bucket.list_object_versions('list/0').versions], ['null'])

    def signed():
        key = 'signed/é'
        url = bucket.sign_url('PUT', key, 60, slash_safe=True, headers={'Content-Type': 'text/x'})
        request = urllib.request.Request(url, data=b'by a URL', method='PUT', headers={'Content-Type': 'text/x'})
        same(urllib.request.urlopen(request).status, 200)
        url = bucket.sign_url('GET', key, 60, slash_safe=True, params={'response-content-type': 'text/y'})
        with urllib.request.urlopen(url) as answer:
            same((answer.read(), answer.headers['Content-Type']), (b'by a URL', 'text/y'))
        refused(urllib.error.HTTPError, lambda: urllib.request.urlopen(url + 'x'))

    def deletes():
        keys = [o.key for o in oss2.ObjectIterator(bucket)]
        refused(oss2.exceptions.BucketNotEmpty, bucket.delete_bucket)
        bucket.delete_object(keys[0])
        same(sorted(bucket.batch_delete_objects(keys).deleted_keys), sorted(keys))
        same(list(oss2.ObjectIterator(bucket)), [])
        bucket.delete_bucket()
        refused(oss2.exceptions.NoSuchBucket, lambda: bucket.put_object('x', 'y'))

    for step in [buckets, objects, copies, uploads, lists, signed, deletes]:
        check(version + ' ' + step.__name__, step)


run('v1', oss2.Auth(ID, SECRET))
run('v4', oss2.ProviderAuthV4(StaticCredentialsProvider(ID, SECRET)), region=REGION)
sys.exit(1 if failed else 0)
