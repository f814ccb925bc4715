"""The official Python SDK against the local Tablestore. Its package has no tests:
what its suites on GitHub assert of rows, batches and search indexes
is asserted here, in other words; it can't make a table that has transactions. The
SDK verifies the checksums of every row, and
the sum and signature of every answer.

    TABLESTORE_ENDPOINT=… TABLESTORE_INSTANCE=… TABLESTORE_ACCESS_KEY_ID=… TABLESTORE_ACCESS_KEY_SECRET=… python check.py
"""
import os
import sys
import traceback

from tablestore import *
from tablestore.error import OTSServiceError

client = OTSClient(os.environ["TABLESTORE_ENDPOINT"], os.environ["TABLESTORE_ACCESS_KEY_ID"],
                   os.environ["TABLESTORE_ACCESS_KEY_SECRET"], os.environ["TABLESTORE_INSTANCE"])
IGNORE = Condition(RowExistenceExpectation.IGNORE)


def create(name, *key, **options):
    client.create_table(TableMeta(name, list(key)), TableOptions(-1, options.pop("versions", 1), **options),
                        ReservedThroughput(CapacityUnit(0, 0)))


def same(got, want):
    assert got == want, "%r, want %r" % (got, want)


def refused(code, message, do):
    try:
        do()
    except OTSServiceError as e:
        same((e.code, e.message), (code, message))
        return
    raise AssertionError("not refused, want %s %s" % (code, message))


def rows():
    create("python_rows", ("s", "STRING"), ("n", "INTEGER"))
    key = [("s", "a"), ("n", 1)]
    values = [("blob", bytearray(b"\x00\xff")), ("bool", True), ("double", 0.5), ("int", -2 ** 63), ("text", "公司")]
    client.put_row("python_rows", Row(key, values), IGNORE)
    _, row, token = client.get_row("python_rows", key, max_version=1)
    same([(c[0], c[1]) for c in row.attribute_columns], values)
    same(not token, True)
    client.update_row("python_rows", Row(key, {"put": [("text", "new")], "delete_all": ["blob"]}), IGNORE)
    _, row, _ = client.get_row("python_rows", key, ["text", "blob"], max_version=1)
    same([(c[0], c[1]) for c in row.attribute_columns], [("text", "new")])
    for wrong, message in [
        ([("s", 1), ("n", 1)], "Validate PK type fail. Input: VT_INTEGER, Meta: VT_STRING."),
        ([("x", "a"), ("n", 1)], "Validate PK name fail. Input: x, Meta: s."),
        ([("s", "a")], "Validate PK size fail. Input: 1, Meta: 2."),
    ]:
        refused("OTSInvalidPK", message, lambda: client.get_row("python_rows", wrong, max_version=1))
        refused("OTSInvalidPK", message, lambda: client.put_row("python_rows", Row(wrong, [("c", 1)]), IGNORE))
        refused("OTSInvalidPK", message, lambda: client.update_row("python_rows", Row(wrong, {"put": [("c", 1)]}), IGNORE))
        refused("OTSInvalidPK", message, lambda: client.delete_row("python_rows", Row(wrong), IGNORE))
    refused("OTSConditionCheckFail", "Condition check failed.",
            lambda: client.put_row("python_rows", Row(key, [("c", 1)]), Condition(RowExistenceExpectation.EXPECT_NOT_EXIST)))
    # An update that only deletes makes no row.
    client.update_row("python_rows", Row([("s", "b"), ("n", 1)], {"delete_all": ["c"]}), IGNORE)
    _, row, _ = client.get_row("python_rows", [("s", "b"), ("n", 1)], max_version=1)
    same(row, None)
    for want in [2, 4]:
        client.update_row("python_rows", Row(key, {"increment": [("i", 2)]}), IGNORE)
        _, row, _ = client.get_row("python_rows", key, ["i"], max_version=1)
        same(row.attribute_columns[0][1], want)
    client.delete_table("python_rows")


def batches():
    create("python_batches", ("n", "INTEGER"))
    put = BatchWriteRowRequest()
    put.add(TableInBatchWriteRowItem("python_batches", [PutRowItem(Row([("n", i)], [("v", i)]), IGNORE) for i in range(100)]))
    same(client.batch_write_row(put).is_all_succeed(), True)
    # One row, twice: both are read.
    get = BatchGetRowRequest()
    get.add(TableInBatchGetRowItem("python_batches", [[("n", 7)], [("n", 7)], [("n", 999)]], [], None, 1))
    got = client.batch_get_row(get).get_result_by_table("python_batches")
    same([r.row and r.row.attribute_columns[0][1] for r in got], [7, 7, None])
    seen, start = [], [("n", INF_MIN)]
    while start:
        _, start, page, _ = client.get_range("python_batches", Direction.FORWARD, start, [("n", INF_MAX)], limit=30, max_version=1)
        seen += [r.primary_key[0][1] for r in page]
    same(seen, list(range(100)))
    double = BatchWriteRowRequest()
    double.add(TableInBatchWriteRowItem("python_batches", [UpdateRowItem(Row([("n", 1)], {"increment": [("v", 1)]}), IGNORE)] * 2))
    _, failed = client.batch_write_row(double).get_update()
    same([f.error_code for f in failed], ["OTSParameterInvalid"] * 2)
    client.delete_table("python_batches")


def searches():
    table, index = "python_searched", "python_search"
    create(table, ("id", "STRING"))
    client.create_search_index(table, index, SearchIndexMeta([
        FieldSchema("k", FieldType.KEYWORD, index=True, enable_sort_and_agg=True),
        FieldSchema("l", FieldType.LONG, index=True, enable_sort_and_agg=True),
        FieldSchema("d", FieldType.DOUBLE, index=True, enable_sort_and_agg=True),
        FieldSchema("b", FieldType.BOOLEAN, index=True, enable_sort_and_agg=True),
        FieldSchema("ks", FieldType.KEYWORD, index=True, is_array=True),
    ]))
    meta, stat = client.describe_search_index(table, index)
    same([type(s) for s in meta.index_sort.sorters], [PrimaryKeySort])
    same(stat.sync_phase, SyncPhase.INCR)
    same(client.list_search_index(table), [(table, index)])
    refused("OTSParameterInvalid", "Table[%s] who has at least one search index cannot be deleted." % table, lambda: client.delete_table(table))
    for i in range(40):
        columns = [("k", "key%02d" % i), ("l", i), ("b", i % 2 == 0), ("ks", '["t%d","all"]' % (i % 3))]
        client.put_row(table, Row([("id", "%02d" % i)], columns + ([("d", i / 10.0)] if i < 10 else [])), IGNORE)

    def found(query, **more):
        res = client.search(table, index, SearchQuery(query, limit=more.pop("limit", 50), get_total_count=True, **more),
                            ColumnsToGet(return_type=ColumnReturnType.ALL_FROM_INDEX))
        same(res.is_all_succeed, True)
        same(len(res.search_hits), len(res.rows))
        return [int(r[0][0][1]) for r in res.rows], res.total_count, res.next_token

    for query, want in [
        (MatchAllQuery(), range(40)),
        (TermQuery("k", "key07"), [7]),
        (TermQuery("d", 0.1), [1]),
        (TermQuery("b", True), range(0, 40, 2)),
        (TermQuery("ks", "t2"), range(2, 40, 3)),
        (TermsQuery("l", [3, 5, 99]), [3, 5]),
        (RangeQuery("l", 30, 33, include_lower=True, include_upper=False), [30, 31, 32]),
        (PrefixQuery("k", "key1"), range(10, 20)),
        (ExistsQuery("d"), range(10)),
        (BoolQuery(must_queries=[RangeQuery("l", 10, 20, True, True)], must_not_queries=[TermQuery("b", True)], should_queries=[TermQuery("ks", "t1")]),
         range(11, 20, 2)),
        (BoolQuery(should_queries=[TermQuery("l", 1), TermQuery("l", 2)], minimum_should_match=1), [1, 2]),
    ]:
        rows, total, _ = found(query)
        same((rows, total), (list(want), len(list(want))))
    pages, token, sort = [], None, Sort([FieldSort("b", SortOrder.DESC), FieldSort("l", SortOrder.DESC)])
    while True:
        rows, total, token = found(MatchAllQuery(), limit=7, sort=sort, next_token=token)
        same(total, 40)
        pages += rows
        sort = None
        if not token:
            break
    same(pages, list(range(38, -1, -2)) + list(range(39, -1, -2)))
    same(found(MatchAllQuery(), limit=3, offset=2, sort=Sort([PrimaryKeySort(SortOrder.DESC)]))[0], [37, 36, 35])
    refused("OTSUnsupportOperation", "Unsupported operation: a Search with a WILDCARD_QUERY is left out of the local server.",
            lambda: found(WildcardQuery("k", "*")))

    splits = client.compute_splits(table, index)
    same(splits.splits_size, 1)
    scanned = client.parallel_scan(table, index, ScanQuery(RangeQuery("l", 30, include_lower=True), limit=100, next_token=None, current_parallel_id=0, max_parallel=1),
                                   splits.session_id, ColumnsToGet(return_type=ColumnReturnType.ALL_FROM_INDEX))
    same([int(r[0][0][1]) for r in scanned.rows], list(range(30, 40)))
    refused("OTSMetaNotMatch", "search index [not_exist] does not exist", lambda: client.compute_splits(table, "not_exist"))
    refused("OTSParameterInvalid", "[search index splits options] must not be null", lambda: client.compute_splits(table, None))
    refused("OTSParameterInvalid", "table [not_exist] does not exist", lambda: client.compute_splits("not_exist", index))
    client.delete_search_index(table, index)
    client.delete_table(table)


for check in [rows, batches, searches]:
    try:
        check()
        print("PASS  python", check.__name__)
    except BaseException:
        print("FAIL  python", check.__name__)
        traceback.print_exc()
        sys.exit(1)
