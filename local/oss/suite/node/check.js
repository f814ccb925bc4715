// The official Node SDK against the local OSS, with signatures of both versions.
//
//	OSS_ENDPOINT=http://127.0.0.1:1234 OSS_REGION=local OSS_ACCESS_KEY_ID=… OSS_ACCESS_KEY_SECRET=… node check.js
'use strict';
const assert = require('assert');
const crypto = require('crypto');
const fs = require('fs');
const os = require('os');
const path = require('path');
const { Readable } = require('stream');
const OSS = require('ali-oss');

const MB = 1 << 20;
const region = process.env.OSS_REGION;
let failed = false;

async function check(name, step) {
  try {
    await step();
    console.log('PASS  node ' + name);
  } catch (err) {
    failed = true;
    console.log('FAIL  node ' + name);
    console.error(err);
  }
}

const refused = (promise, code) => assert.rejects(promise, (err) => {
  assert.strictEqual(err.code, code);
  return true;
});

async function run(version, v4) {
  const bucket = 'node-' + version;
  const config = {
    endpoint: process.env.OSS_ENDPOINT, region: 'oss-' + region, authorizationV4: v4, bucket,
    accessKeyId: process.env.OSS_ACCESS_KEY_ID, accessKeySecret: process.env.OSS_ACCESS_KEY_SECRET,
  };
  const client = new OSS(config);
  // Where the endpoint is an IP address, the SDK neither lists buckets nor signs URLs.
  const byName = new OSS({ ...config, endpoint: process.env.OSS_ENDPOINT.replace('127.0.0.1', 'localhost'), sldEnable: true });
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'oss-node-'));
  const big = crypto.randomBytes(2 * MB + 17);

  await check(version + ' buckets', async () => {
    await client.putBucket(bucket);
    const { buckets } = await byName.listBuckets({ prefix: bucket });
    assert.deepStrictEqual(buckets.map((b) => b.name), [bucket]);
    const { bucket: info } = await client.getBucketInfo(bucket);
    assert.deepStrictEqual([info.Name, info.AccessControlList.Grant, info.Owner.ID], [bucket, 'private', '0']);
    assert.strictEqual((await client.getBucketACL(bucket)).acl, 'private');
    assert.strictEqual((await client.getBucketLocation(bucket)).location, 'oss-' + region);
    await refused(client.getBucketInfo('no-such-bucket'), 'NoSuchBucket');
    await refused(client.getBucketLifecycle('no-such-bucket'), 'NoSuchBucket');
  });

  await check(version + ' objects', async () => {
    const key = 'a/é b+c.txt';
    const put = await client.put(key, Buffer.from('content'), { meta: { color: 'red' }, mime: 'text/x' });
    const got = await client.get(key);
    assert.strictEqual(String(got.content), 'content');
    assert.strictEqual(got.res.headers['x-oss-meta-color'], 'red');
    assert.strictEqual(String((await client.get(key, { headers: { Range: 'bytes=1-3' } })).content), 'ont');
    const head = await client.head(key);
    assert.deepStrictEqual([head.meta.color, head.res.headers.etag], ['red', put.res.headers.etag]);
    assert.strictEqual((await client.getObjectMeta(key)).res.headers['content-length'], '7');
    assert.strictEqual((await client.getACL(key)).acl, 'default');
    await refused(client.get('none'), 'NoSuchKey');
    await refused(client.head('none'), 'NoSuchKey');
    assert.strictEqual((await client.head(key, { headers: { 'If-None-Match': head.res.headers.etag } })).status, 304);
    await refused(client.get(key, { headers: { 'If-Unmodified-Since': new Date(0).toUTCString() } }), 'PreconditionFailed');
    await refused(client.put(key, Buffer.from('x'), { headers: { 'x-oss-forbid-overwrite': 'true' } }), 'FileAlreadyExists');
  });

  await check(version + ' streams', async () => {
    await client.putStream('stream', Readable.from([Buffer.from('one '), Buffer.from('two')]));
    const { stream } = await client.getStream('stream');
    const parts = [];
    for await (const part of stream) parts.push(part);
    assert.strictEqual(String(Buffer.concat(parts)), 'one two');
  });

  await check(version + ' copies', async () => {
    await client.put('from', Buffer.from('xyz'), { meta: { color: 'red' } });
    await client.copy('to', 'from');
    assert.strictEqual((await client.head('to')).meta.color, 'red');
    await client.copy('to', 'from', { meta: { color: 'blue' } });
    assert.strictEqual((await client.head('to')).meta.color, 'blue');
    assert.strictEqual(String((await client.get('to')).content), 'xyz');
  });

  await check(version + ' uploads', async () => {
    const file = path.join(folder, 'big');
    fs.writeFileSync(file, big);
    await client.multipartUpload('big', file, { partSize: MB / 2, parallel: 2 });
    assert.ok((await client.get('big')).content.equals(big));
    await client.multipartUploadCopy('copied', { sourceKey: 'big', sourceBucketName: bucket }, { partSize: MB });
    assert.ok((await client.get('copied')).content.equals(big));
    const { uploadId } = await client.initMultipartUpload('left');
    await client.uploadPart('left', uploadId, 1, file, 0, MB);
    assert.deepStrictEqual([].concat((await client.listParts('left', uploadId, {})).parts).map((p) => Number(p.Size)), [MB]);
    assert.deepStrictEqual((await client.listUploads({})).uploads.map((u) => u.uploadId), [uploadId]);
    await client.abortMultipartUpload('left', uploadId);
  });

  await check(version + ' lists', async () => {
    const keys = [];
    for (let n = 0; n < 7; n++) {
      keys.push(`list/${n}/x`);
      await client.put(keys[n], Buffer.from(String(n)));
    }
    const all = async (page) => {
      const out = [];
      for (let at = null, more = true; more;) {
        const answer = await page(at);
        out.push(...(answer.objects || []).map((o) => o.name), ...(answer.prefixes || []));
        more = answer.isTruncated;
        at = answer;
      }
      return out;
    };
    assert.deepStrictEqual(await all((a) => client.list({ prefix: 'list/', 'max-keys': 3, marker: a && a.nextMarker })), keys);
    assert.deepStrictEqual(await all((a) => client.listV2({ prefix: 'list/', 'max-keys': '3', 'continuation-token': a && a.nextContinuationToken })), keys);
    assert.deepStrictEqual((await client.list({ prefix: 'list/', delimiter: '/', 'max-keys': 10 })).prefixes, keys.map((k) => k.slice(0, -1)));
    const { objects } = await client.getBucketVersions({ prefix: 'list/0' });
    assert.deepStrictEqual(objects.map((o) => o.versionId), ['null']);
  });

  await check(version + ' signed URLs', async () => {
    const sign = (method, more = {}) => (v4
      ? byName.signatureUrlV4(method, 60, more, 'signed/é')
      : byName.signatureUrl('signed/é', { expires: 60, method, 'Content-Type': more.headers && more.headers['Content-Type'] }));
    const type = { headers: { 'Content-Type': 'text/x' } };
    const put = await fetch(await sign('PUT', type), { method: 'PUT', body: 'by a URL', ...type });
    assert.strictEqual(put.status, 200, await put.text());
    const url = await sign('GET');
    const got = await fetch(url);
    assert.strictEqual(await got.text(), 'by a URL');
    assert.strictEqual((await fetch(url + 'x')).status, 403);
  });

  await check(version + ' deletes', async () => {
    const keys = (await client.list({ 'max-keys': 1000 })).objects.map((o) => o.name);
    await refused(client.deleteBucket(bucket), 'BucketNotEmpty');
    await client.delete(keys[0]);
    const { deleted } = await client.deleteMulti(keys);
    assert.deepStrictEqual(deleted.map((d) => d.Key || d).sort(), keys.sort());
    assert.deepStrictEqual((await client.list({ 'max-keys': 1000 })).objects || [], []);
    await client.deleteBucket(bucket);
    await refused(client.put('x', Buffer.from('y')), 'NoSuchBucket');
  });
  fs.rmSync(folder, { recursive: true });
}

(async () => {
  await run('v1', false);
  await run('v4', true);
  process.exit(failed ? 1 : 0);
})();
