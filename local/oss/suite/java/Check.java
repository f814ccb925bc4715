import com.aliyun.oss.ClientBuilderConfiguration;
import com.aliyun.oss.HttpMethod;
import com.aliyun.oss.OSS;
import com.aliyun.oss.OSSClientBuilder;
import com.aliyun.oss.OSSException;
import com.aliyun.oss.common.auth.DefaultCredentialProvider;
import com.aliyun.oss.common.comm.SignVersion;
import com.aliyun.oss.model.*;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStream;
import java.net.HttpURLConnection;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.*;

/** The official Java SDK against the local OSS, with signatures of both versions. */
public class Check {
    static final int MB = 1 << 20;
    static boolean failed;

    interface Step {
        void run() throws Exception;
    }

    static void check(String name, Step step) {
        try {
            step.run();
            System.out.println("PASS  java " + name);
        } catch (Throwable e) {
            failed = true;
            System.out.println("FAIL  java " + name);
            e.printStackTrace();
        }
    }

    static void same(Object got, Object want) {
        if (!Objects.equals(got, want)) {
            throw new AssertionError(got + ", want " + want);
        }
    }

    static void refused(String code, Step step) throws Exception {
        try {
            step.run();
        } catch (OSSException e) {
            same(e.getErrorCode(), code);
            return;
        }
        throw new AssertionError("it was not refused with " + code);
    }

    static byte[] read(InputStream in) throws Exception {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        in.transferTo(out);
        in.close();
        return out.toByteArray();
    }

    static InputStream of(String text) {
        return new ByteArrayInputStream(text.getBytes(StandardCharsets.UTF_8));
    }

    static void run(String version, SignVersion sign) throws Exception {
        ClientBuilderConfiguration config = new ClientBuilderConfiguration();
        config.setSignatureVersion(sign);
        OSS client = OSSClientBuilder.create().endpoint(System.getenv("OSS_ENDPOINT")).region(System.getenv("OSS_REGION"))
                .credentialsProvider(new DefaultCredentialProvider(System.getenv("OSS_ACCESS_KEY_ID"), System.getenv("OSS_ACCESS_KEY_SECRET")))
                .clientConfiguration(config).build();
        String bucket = "java-" + version;
        byte[] big = new byte[2 * MB + 17];
        new Random(1).nextBytes(big);

        check(version + " buckets", () -> {
            client.createBucket(bucket);
            same(client.listBuckets(bucket, null, 10).getBucketList().get(0).getName(), bucket);
            same(client.doesBucketExist(bucket), true);
            same(client.doesBucketExist("no-such-bucket"), false);
            BucketInfo info = client.getBucketInfo(bucket);
            same(info.getBucket().getName() + " " + info.getCannedACL() + " " + info.getBucket().getOwner().getId(), bucket + " private 0");
            same(client.getBucketAcl(bucket).getCannedACL(), CannedAccessControlList.Private);
            same(client.getBucketLocation(bucket), "oss-" + System.getenv("OSS_REGION"));
            refused("NoSuchBucket", () -> client.getBucketLifecycle("no-such-bucket"));
        });

        check(version + " objects", () -> {
            String key = "a/é b+c.txt";
            ObjectMetadata meta = new ObjectMetadata();
            meta.addUserMetadata("color", "red");
            meta.setContentType("text/x");
            PutObjectResult put = client.putObject(bucket, key, of("content"), meta);
            OSSObject got = client.getObject(bucket, key);
            same(new String(read(got.getObjectContent())), "content");
            same(got.getObjectMetadata().getUserMetadata().get("color") + " " + got.getObjectMetadata().getContentType(), "red text/x");
            GetObjectRequest part = new GetObjectRequest(bucket, key);
            part.setRange(1, 3);
            same(new String(read(client.getObject(part).getObjectContent())), "ont");
            ObjectMetadata head = client.getObjectMetadata(bucket, key);
            same(head.getContentLength() + " " + head.getETag(), "7 " + put.getETag());
            same(client.getSimplifiedObjectMeta(bucket, key).getSize(), 7L);
            same(client.getObjectAcl(bucket, key).getPermission(), ObjectPermission.Default);
            same(client.doesObjectExist(bucket, key), true);
            same(client.doesObjectExist(bucket, "none"), false);
            refused("NoSuchKey", () -> client.getObject(bucket, "none"));
            GetObjectRequest changed = new GetObjectRequest(bucket, key);
            changed.setModifiedSinceConstraint(new Date(head.getLastModified().getTime() - 1000));
            changed.setUnmodifiedSinceConstraint(new Date(head.getLastModified().getTime() + 1000));
            changed.setMatchingETagConstraints(List.of(put.getETag()));
            same(new String(read(client.getObject(changed).getObjectContent())), "content");
            GetObjectRequest unchanged = new GetObjectRequest(bucket, key);
            unchanged.setNonmatchingETagConstraints(List.of(put.getETag()));
            refused("NotModified", () -> client.getObject(unchanged));
            GetObjectRequest old = new GetObjectRequest(bucket, key);
            old.setUnmodifiedSinceConstraint(new Date(0));
            refused("PreconditionFailed", () -> client.getObject(old));
            ObjectMetadata forbid = new ObjectMetadata();
            forbid.setHeader("x-oss-forbid-overwrite", "true");
            refused("FileAlreadyExists", () -> client.putObject(bucket, key, of("x"), forbid));
        });

        check(version + " copies", () -> {
            ObjectMetadata meta = new ObjectMetadata();
            meta.addUserMetadata("color", "red");
            client.putObject(bucket, "from", of("xyz"), meta);
            client.copyObject(bucket, "from", bucket, "to");
            same(client.getObjectMetadata(bucket, "to").getUserMetadata().get("color"), "red");
            CopyObjectRequest again = new CopyObjectRequest(bucket, "from", bucket, "to");
            ObjectMetadata blue = new ObjectMetadata();
            blue.addUserMetadata("color", "blue");
            again.setNewObjectMetadata(blue);
            client.copyObject(again);
            same(client.getObjectMetadata(bucket, "to").getUserMetadata().get("color"), "blue");
            same(new String(read(client.getObject(bucket, "to").getObjectContent())), "xyz");
        });

        check(version + " uploads", () -> {
            Path folder = Files.createTempDirectory("oss-java-");
            Path source = folder.resolve("source"), target = folder.resolve("target");
            Files.write(source, big);
            UploadFileRequest upload = new UploadFileRequest(bucket, "big");
            upload.setUploadFile(source.toString());
            upload.setPartSize(MB / 2);
            upload.setTaskNum(2);
            try {
                client.uploadFile(upload);
                DownloadFileRequest download = new DownloadFileRequest(bucket, "big");
                download.setDownloadFile(target.toString());
                download.setPartSize(MB / 2);
                client.downloadFile(download);
            } catch (Exception | Error e) {
                throw e;
            } catch (Throwable e) {
                throw new Exception(e);
            }
            same(Arrays.equals(Files.readAllBytes(target), big), true);
            String id = client.initiateMultipartUpload(new InitiateMultipartUploadRequest(bucket, "copied")).getUploadId();
            List<PartETag> parts = new ArrayList<>();
            for (int n = 0; n < 2; n++) {
                UploadPartCopyRequest part = new UploadPartCopyRequest(bucket, "big", bucket, "copied");
                part.setUploadId(id);
                part.setPartNumber(n + 1);
                part.setBeginIndex((long) n * MB);
                part.setPartSize(n == 0 ? (long) MB : (long) MB + 17);
                parts.add(client.uploadPartCopy(part).getPartETag());
            }
            PartListing listed = client.listParts(new ListPartsRequest(bucket, "copied", id));
            same(listed.getParts().get(1).getSize(), (long) MB + 17);
            same(listed.getParts().get(1).getLastModified() != null, true);
            same(client.listMultipartUploads(new ListMultipartUploadsRequest(bucket)).getMultipartUploads().get(0).getUploadId(), id);
            client.completeMultipartUpload(new CompleteMultipartUploadRequest(bucket, "copied", id, parts));
            same(Arrays.equals(read(client.getObject(bucket, "copied").getObjectContent()), big), true);
            String left = client.initiateMultipartUpload(new InitiateMultipartUploadRequest(bucket, "left")).getUploadId();
            client.abortMultipartUpload(new AbortMultipartUploadRequest(bucket, "left", left));
        });

        check(version + " lists", () -> {
            List<String> keys = new ArrayList<>(), folders = new ArrayList<>(), got = new ArrayList<>(), gotV2 = new ArrayList<>();
            for (int n = 0; n < 7; n++) {
                keys.add("list/" + n + "/x");
                folders.add("list/" + n + "/");
                client.putObject(bucket, keys.get(n), of("" + n));
            }
            ObjectListing page = null;
            do {
                ListObjectsRequest request = new ListObjectsRequest(bucket);
                request.setPrefix("list/");
                request.setMaxKeys(3);
                request.setMarker(page == null ? null : page.getNextMarker());
                page = client.listObjects(request);
                page.getObjectSummaries().forEach(o -> got.add(o.getKey()));
            } while (page.isTruncated());
            same(got, keys);
            ListObjectsV2Result pageV2 = null;
            do {
                ListObjectsV2Request request = new ListObjectsV2Request(bucket);
                request.setPrefix("list/");
                request.setMaxKeys(3);
                request.setFetchOwner(true);
                request.setContinuationToken(pageV2 == null ? null : pageV2.getNextContinuationToken());
                pageV2 = client.listObjectsV2(request);
                pageV2.getObjectSummaries().forEach(o -> gotV2.add(o.getKey() + o.getOwner().getId()));
            } while (pageV2.isTruncated());
            same(gotV2, keys.stream().map(k -> k + "0").collect(java.util.stream.Collectors.toList()));
            ListObjectsRequest request = new ListObjectsRequest(bucket);
            request.setPrefix("list/");
            request.setDelimiter("/");
            same(client.listObjects(request).getCommonPrefixes(), folders);
            same(client.listVersions(bucket, "list/0").getVersionSummaries().get(0).getVersionId(), "null");
        });

        check(version + " signed URLs", () -> {
            Date end = new Date(System.currentTimeMillis() + 60_000);
            GeneratePresignedUrlRequest request = new GeneratePresignedUrlRequest(bucket, "signed/é", HttpMethod.PUT);
            request.setExpiration(end);
            request.setContentType("text/x");
            HttpURLConnection put = (HttpURLConnection) client.generatePresignedUrl(request).openConnection();
            put.setRequestMethod("PUT");
            put.setRequestProperty("Content-Type", "text/x");
            put.setDoOutput(true);
            put.getOutputStream().write("by a URL".getBytes());
            same(put.getResponseCode(), 200);
            URL url = client.generatePresignedUrl(bucket, "signed/é", end);
            same(new String(read(url.openStream())), "by a URL");
            same(((HttpURLConnection) new URL(url + "x").openConnection()).getResponseCode(), 403);
        });

        check(version + " deletes", () -> {
            List<String> keys = new ArrayList<>();
            client.listObjects(bucket).getObjectSummaries().forEach(o -> keys.add(o.getKey()));
            refused("BucketNotEmpty", () -> client.deleteBucket(bucket));
            client.deleteObject(bucket, keys.get(0));
            DeleteObjectsRequest request = new DeleteObjectsRequest(bucket).withKeys(keys);
            same(new TreeSet<>(client.deleteObjects(request).getDeletedObjects()), new TreeSet<>(keys));
            same(client.listObjects(bucket).getObjectSummaries().size(), 0);
            client.deleteBucket(bucket);
            refused("NoSuchBucket", () -> client.putObject(bucket, "x", of("y")));
        });
        client.shutdown();
    }

    public static void main(String[] args) throws Exception {
        run("v1", SignVersion.V1);
        run("v4", SignVersion.V4);
        System.exit(failed ? 1 : 0);
    }
}
