import com.alicloud.openservices.tablestore.SyncClient;
import com.alicloud.openservices.tablestore.TableStoreException;
import com.alicloud.openservices.tablestore.model.*;
import com.alicloud.openservices.tablestore.model.search.*;
import com.alicloud.openservices.tablestore.model.search.query.*;
import com.alicloud.openservices.tablestore.model.search.sort.FieldSort;
import com.alicloud.openservices.tablestore.model.search.sort.Sort;
import com.alicloud.openservices.tablestore.model.search.sort.SortOrder;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * The official Java SDK against the local Tablestore: streams, transactions and
 * indexes. It is the one independent SDK that reads streams, and it verifies the
 * checksums of their rows.
 */
public class Check {
    static final SyncClient client = new SyncClient(System.getenv("TABLESTORE_ENDPOINT"), System.getenv("TABLESTORE_ACCESS_KEY_ID"),
            System.getenv("TABLESTORE_ACCESS_KEY_SECRET"), System.getenv("TABLESTORE_INSTANCE"));

    interface Step {
        void run() throws Exception;
    }

    static void check(String name, Step step) {
        try {
            step.run();
            System.out.println("PASS  java " + name);
        } catch (Throwable e) {
            System.out.println("FAIL  java " + name);
            e.printStackTrace();
            client.shutdown();
            System.exit(1);
        }
    }

    static void same(Object got, Object want) {
        if (!got.equals(want)) {
            throw new AssertionError(got + ", want " + want);
        }
    }

    static void refused(String code, Step step) throws Exception {
        try {
            step.run();
        } catch (TableStoreException e) {
            same(e.getErrorCode(), code);
            return;
        }
        throw new AssertionError("not refused, want " + code);
    }

    static PrimaryKey key(String a, long b) {
        return PrimaryKeyBuilder.createPrimaryKeyBuilder()
                .addPrimaryKeyColumn("a", PrimaryKeyValue.fromString(a)).addPrimaryKeyColumn("b", PrimaryKeyValue.fromLong(b)).build();
    }

    static CreateTableRequest table(String name, int versions) {
        TableMeta meta = new TableMeta(name);
        meta.addPrimaryKeyColumn("a", PrimaryKeyType.STRING);
        meta.addPrimaryKeyColumn("b", PrimaryKeyType.INTEGER);
        return new CreateTableRequest(meta, new TableOptions(-1, versions));
    }

    static ColumnValue text(String s) {
        return ColumnValue.fromString(s);
    }

    /** A key's values. */
    static String show(PrimaryKey key) {
        List<String> values = new ArrayList<>();
        for (PrimaryKeyColumn c : key.getPrimaryKeyColumns()) {
            values.add(c.getValue().toString());
        }
        return String.join(",", values);
    }

    /** A column with its timestamp if that was given, not made by the server. */
    static String show(RecordColumn c, long given) {
        Column column = c.getColumn();
        String out = column.getName();
        if (c.getColumnType() != RecordColumn.ColumnType.DELETE_ALL_VERSION) {
            out += column.getTimestamp() == given ? "@given" : "@made";
        }
        return c.getColumnType() == RecordColumn.ColumnType.PUT ? out + "=" + column.getValue() : out + " " + c.getColumnType();
    }

    static void streams() throws Exception {
        CreateTableRequest create = table("java_stream", 2);
        create.setStreamSpecification(new StreamSpecification(true, 24));
        create.getStreamSpecification().addOriginColumnsToGet("c");
        client.createTable(create);
        long given = System.currentTimeMillis() - 1000;
        client.putRow(new PutRowRequest(new RowPutChange("java_stream", key("x", 1)).addColumn("c", text("one"), given).addColumn("blob", ColumnValue.fromBinary(new byte[] {0, -1}))));
        client.updateRow(new UpdateRowRequest(new RowUpdateChange("java_stream", key("x", 1))
                .put("c", text("two")).put("n", ColumnValue.fromLong(Long.MIN_VALUE)).put("f", ColumnValue.fromDouble(0.1)).put("t", ColumnValue.fromBoolean(true))));
        client.updateRow(new UpdateRowRequest(new RowUpdateChange("java_stream", key("x", 1)).deleteColumn("c", given).deleteColumns("n")));
        client.updateRow(new UpdateRowRequest(new RowUpdateChange("java_stream", key("x", 2)).increment(new Column("i", ColumnValue.fromLong(5)))));
        client.deleteRow(new DeleteRowRequest(new RowDeleteChange("java_stream", key("x", 1))));

        List<Stream> streams = client.listStream(new ListStreamRequest("java_stream")).getStreams();
        same(streams.size(), 1);
        String stream = streams.get(0).getStreamId();
        DescribeStreamResponse described = client.describeStream(new DescribeStreamRequest(stream));
        same(described.getStatus(), StreamStatus.ACTIVE);
        same(described.getShards().size(), 1);
        String shard = described.getShards().get(0).getShardId();
        String iterator = client.getShardIterator(new GetShardIteratorRequest(stream, shard)).getShardIterator();
        List<String> got = new ArrayList<>();
        RecordSequenceInfo last = null;
        for (;;) {
            GetStreamRecordRequest read = new GetStreamRecordRequest(iterator);
            read.setLimit(2);
            GetStreamRecordResponse page = client.getStreamRecord(read);
            for (StreamRecord r : page.getRecords()) {
                List<String> columns = new ArrayList<>();
                for (RecordColumn c : r.getColumns()) {
                    columns.add(show(c, given));
                }
                List<String> origin = new ArrayList<>();
                for (RecordColumn c : r.getOriginColumns()) {
                    origin.add(show(c, given));
                }
                got.add(r.getRecordType() + " " + show(r.getPrimaryKey()) + " " + columns + " from " + origin);
                RecordSequenceInfo at = r.getSequenceInfo();
                if (last != null && (at.getEpoch() < last.getEpoch() || at.getTimestamp() < last.getTimestamp()
                        || at.getTimestamp() == last.getTimestamp() && at.getRowIndex() <= last.getRowIndex())) {
                    throw new AssertionError(at + " after " + last);
                }
                last = at;
            }
            if (page.getRecords().isEmpty()) {
                same(page.getNextShardIterator(), iterator);
                break;
            }
            iterator = page.getNextShardIterator();
        }
        same(got, Arrays.asList(
                "PUT x,1 [blob@made=[0, -1], c@given=one] from []",
                "UPDATE x,1 [c@made=two, n@made=-9223372036854775808, f@made=0.1, t@made=true] from [c@given=one]",
                "UPDATE x,1 [c@given DELETE_ONE_VERSION, n DELETE_ALL_VERSION] from [c@made=two]",
                "UPDATE x,2 [i@made=5] from []",
                "DELETE x,1 [] from [c@made=two]"));
        GetShardIteratorRequest later = new GetShardIteratorRequest(stream, shard);
        later.setTimestamp(last.getTimestamp() + 1);
        same(client.getStreamRecord(new GetStreamRecordRequest(client.getShardIterator(later).getShardIterator())).getRecords().size(), 0);

        UpdateTableRequest off = new UpdateTableRequest("java_stream");
        off.setStreamSpecification(new StreamSpecification(false));
        client.updateTable(off);
        refused("OTSParameterInvalid", () -> client.describeStream(new DescribeStreamRequest(stream)));
        String old = iterator;
        refused("OTSTrimmedDataAccess", () -> client.getStreamRecord(new GetStreamRecordRequest(old)));
        client.deleteTable(new DeleteTableRequest("java_stream"));
    }

    static String cell(PrimaryKey key, String transaction) {
        SingleRowQueryCriteria query = new SingleRowQueryCriteria("java_txn", key);
        query.setMaxVersions(1);
        GetRowRequest get = new GetRowRequest(query);
        if (transaction != null) {
            get.setTransactionId(transaction);
        }
        Row row = client.getRow(get).getRow();
        return row == null ? "none" : row.getLatestColumn("c").getValue().asString();
    }

    static void transactions() throws Exception {
        CreateTableRequest create = table("java_txn", 1);
        create.setLocalTxnEnabled(true);
        client.createTable(create);
        PrimaryKey partition = PrimaryKeyBuilder.createPrimaryKeyBuilder().addPrimaryKeyColumn("a", PrimaryKeyValue.fromString("x")).build();
        for (boolean commit : new boolean[] {false, true}) {
            String id = client.startLocalTransaction(new StartLocalTransactionRequest("java_txn", partition)).getTransactionID();
            PutRowRequest put = new PutRowRequest(new RowPutChange("java_txn", key("x", 1)).addColumn("c", text("new")));
            put.setTransactionId(id);
            client.putRow(put);
            same(cell(key("x", 1), id), "new");
            same(cell(key("x", 1), null), "none");
            if (commit) {
                client.commitTransaction(new CommitTransactionRequest(id));
            } else {
                client.abortTransaction(new AbortTransactionRequest(id));
            }
            same(cell(key("x", 1), null), commit ? "new" : "none");
            refused("OTSSessionNotExist", () -> client.commitTransaction(new CommitTransactionRequest(id)));
        }
        client.deleteTable(new DeleteTableRequest("java_txn"));
    }

    static void indexes() throws Exception {
        CreateTableRequest create = table("java_indexed", 1);
        create.getTableMeta().addDefinedColumn("city", DefinedColumnType.STRING);
        create.getTableMeta().addDefinedColumn("age", DefinedColumnType.INTEGER);
        client.createTable(create);
        for (int i = 0; i < 6; i++) {
            client.putRow(new PutRowRequest(new RowPutChange("java_indexed", key("x", i))
                    .addColumn("city", text(i % 2 == 0 ? "rome" : "bern")).addColumn("age", ColumnValue.fromLong(90 - i))));
        }
        IndexMeta global = new IndexMeta("java_by_city");
        global.addPrimaryKeyColumn("city");
        global.addDefinedColumn("age");
        IndexMeta local = new IndexMeta("java_local");
        local.addPrimaryKeyColumn("a");
        local.addPrimaryKeyColumn("age");
        local.setIndexType(IndexType.IT_LOCAL_INDEX);
        local.setIndexUpdateMode(IndexUpdateMode.IUM_SYNC_INDEX);
        for (IndexMeta m : Arrays.asList(global, local)) {
            client.createIndex(new CreateIndexRequest("java_indexed", m, true));
        }
        List<IndexMeta> metas;
        do {
            metas = client.describeTable(new DescribeTableRequest("java_indexed")).getIndexMeta();
        } while (metas.stream().anyMatch(m -> m.getIndexSyncPhase() != SyncStat.SyncPhase.INCR));
        same(scan("java_by_city", "city", "a", "b"), Arrays.asList("bern,x,1", "bern,x,3", "bern,x,5", "rome,x,0", "rome,x,2", "rome,x,4"));
        same(scan("java_local", "a", "age", "b"), Arrays.asList("x,85,5", "x,86,4", "x,87,3", "x,88,2", "x,89,1", "x,90,0"));
        for (IndexMeta m : metas) {
            client.deleteIndex(new DeleteIndexRequest("java_indexed", m.getIndexName()));
        }

        CreateSearchIndexRequest search = new CreateSearchIndexRequest("java_indexed", "java_search");
        IndexSchema schema = new IndexSchema();
        schema.setFieldSchemas(Arrays.asList(new FieldSchema("city", FieldType.KEYWORD), new FieldSchema("age", FieldType.LONG).setEnableSortAndAgg(true)));
        search.setIndexSchema(schema);
        client.createSearchIndex(search);
        DescribeSearchIndexRequest describe = new DescribeSearchIndexRequest();
        describe.setTableName("java_indexed");
        describe.setIndexName("java_search");
        DescribeSearchIndexResponse described = client.describeSearchIndex(describe);
        same(described.getSchema().getFieldSchemas().get(1).getFieldType(), FieldType.LONG);
        same(described.getSyncStat().getSyncPhase(), SyncStat.SyncPhase.INCR);
        SearchQuery all = new SearchQuery();
        all.setQuery(new MatchAllQuery());
        all.setLimit(4);
        all.setTrackTotalCount(SearchQuery.TRACK_TOTAL_COUNT);
        SearchRequest request = new SearchRequest("java_indexed", "java_search", all);
        SearchRequest.ColumnsToGet columns = new SearchRequest.ColumnsToGet();
        columns.setReturnAllFromIndex(true);
        request.setColumnsToGet(columns);
        List<String> found = new ArrayList<>();
        for (;;) {
            SearchResponse page = client.search(request);
            same(page.getTotalCount(), 6L);
            for (Row row : page.getRows()) {
                found.add(show(row.getPrimaryKey()) + " " + row.getLatestColumn("city").getValue());
            }
            if (page.getNextToken() == null || page.getNextToken().length == 0) {
                break;
            }
            all.setToken(page.getNextToken());
        }
        same(found, Arrays.asList("x,0 rome", "x,1 bern", "x,2 rome", "x,3 bern", "x,4 rome", "x,5 bern"));
        TermQuery rome = new TermQuery();
        rome.setFieldName("city");
        rome.setTerm(ColumnValue.fromString("rome"));
        same(search(rome, null), Arrays.asList("x,0", "x,2", "x,4"));
        same(search(rome, new Sort(Arrays.asList(new FieldSort("age", SortOrder.ASC)))), Arrays.asList("x,4", "x,2", "x,0"));
        TermsQuery ages = new TermsQuery();
        ages.setFieldName("age");
        ages.setTerms(Arrays.asList(ColumnValue.fromLong(87), ColumnValue.fromLong(90)));
        same(search(ages, null), Arrays.asList("x,0", "x,3"));
        RangeQuery between = new RangeQuery();
        between.setFieldName("age");
        between.greaterThanOrEqual(ColumnValue.fromLong(87));
        between.lessThan(ColumnValue.fromLong(90));
        same(search(between, null), Arrays.asList("x,1", "x,2", "x,3"));
        PrefixQuery prefix = new PrefixQuery();
        prefix.setFieldName("city");
        prefix.setPrefix("be");
        ExistsQuery exists = new ExistsQuery();
        exists.setFieldName("age");
        BoolQuery both = new BoolQuery();
        both.setMustQueries(Arrays.asList(between, exists));
        both.setMustNotQueries(Arrays.asList(rome));
        both.setShouldQueries(Arrays.asList(prefix));
        both.setMinimumShouldMatch(1);
        same(search(both, null), Arrays.asList("x,1", "x,3"));
        WildcardQuery wild = new WildcardQuery();
        wild.setFieldName("city");
        wild.setValue("*");
        refused("OTSUnsupportOperation", () -> search(wild, null));
        DeleteSearchIndexRequest drop = new DeleteSearchIndexRequest();
        drop.setTableName("java_indexed");
        drop.setIndexName("java_search");
        client.deleteSearchIndex(drop);
        client.deleteTable(new DeleteTableRequest("java_indexed"));
    }

    /** The keys that a query finds, page after page, with a hit for each. */
    static List<String> search(Query query, Sort sort) {
        SearchQuery wanted = new SearchQuery();
        wanted.setQuery(query);
        wanted.setSort(sort);
        wanted.setLimit(2);
        wanted.setGetTotalCount(true);
        List<String> out = new ArrayList<>();
        for (;;) {
            SearchResponse page = client.search(new SearchRequest("java_indexed", "java_search", wanted));
            same(page.getSearchHits().size(), page.getRows().size());
            for (Row row : page.getRows()) {
                out.add(show(row.getPrimaryKey()));
            }
            if (page.getNextToken() == null || page.getNextToken().length == 0) {
                same(page.getTotalCount(), (long) out.size());
                return out;
            }
            wanted.setSort(null);
            wanted.setToken(page.getNextToken());
        }
    }

    static List<String> scan(String index, String... columns) {
        PrimaryKeyBuilder from = PrimaryKeyBuilder.createPrimaryKeyBuilder(), to = PrimaryKeyBuilder.createPrimaryKeyBuilder();
        for (String c : columns) {
            from.addPrimaryKeyColumn(c, PrimaryKeyValue.INF_MIN);
            to.addPrimaryKeyColumn(c, PrimaryKeyValue.INF_MAX);
        }
        RangeRowQueryCriteria range = new RangeRowQueryCriteria(index);
        range.setMaxVersions(1);
        range.setLimit(4);
        range.setExclusiveEndPrimaryKey(to.build());
        List<String> out = new ArrayList<>();
        for (PrimaryKey next = from.build(); next != null; ) {
            range.setInclusiveStartPrimaryKey(next);
            GetRangeResponse page = client.getRange(new GetRangeRequest(range));
            for (Row row : page.getRows()) {
                out.add(show(row.getPrimaryKey()));
            }
            next = page.getNextStartPrimaryKey();
        }
        return out;
    }

    public static void main(String[] args) {
        check("streams", Check::streams);
        check("transactions", Check::transactions);
        check("indexes", Check::indexes);
        client.shutdown();
    }
}
