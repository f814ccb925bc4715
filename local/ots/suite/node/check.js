// The official Node SDK against the local Tablestore: it writes, reads, ranges,
// batches and compares. Its PlainBuffer code is independent of ours and of the
// Go SDK's, and verifies both checksums of every row, the answer's checksum and
// its signature.
//
//	TABLESTORE_ENDPOINT=http://127.0.0.1:1234 TABLESTORE_INSTANCE=local TABLESTORE_ACCESS_KEY_ID=… TABLESTORE_ACCESS_KEY_SECRET=… node check.js
'use strict';
const assert = require('assert');
const TableStore = require('tablestore');
const { Long, INF_MIN, INF_MAX } = TableStore;

const client = new TableStore.Client({
  endpoint: process.env.TABLESTORE_ENDPOINT,
  instancename: process.env.TABLESTORE_INSTANCE,
  accessKeyId: process.env.TABLESTORE_ACCESS_KEY_ID,
  secretAccessKey: process.env.TABLESTORE_ACCESS_KEY_SECRET,
});
const call = (name, params) => client[name](params);
const ignore = () => new TableStore.Condition(TableStore.RowExistenceExpectation.IGNORE, null);
const table = 'node_check';
const key = (s, n) => [{ s }, { n: Long.fromNumber(n) }];

// A row as plain values: the key, then each cell with its timestamp.
const plain = (row) => [
  row.primaryKey.map((c) => String(c.value)),
  row.attributes.map((a) => [a.columnName, Buffer.isBuffer(a.columnValue) ? a.columnValue.toString('hex') : String(a.columnValue), Number(a.timestamp)]),
];

async function refused(promise, code) {
  await assert.rejects(promise, (err) => {
    assert.strictEqual(err.code, code, `${err.code}: ${err.message}`);
    return true;
  });
}

const checks = {
  async tables() {
    await call('createTable', {
      tableMeta: { tableName: table, primaryKey: [{ name: 's', type: 'STRING' }, { name: 'n', type: 'INTEGER' }] },
      reservedThroughput: { capacityUnit: { read: 0, write: 0 } },
      tableOptions: { timeToLive: -1, maxVersions: 3 },
    });
    const { tableNames } = await call('listTable', {});
    assert.ok(tableNames.includes(table));
    const d = await call('describeTable', { tableName: table });
    assert.strictEqual(d.tableOptions.maxVersions, 3);
    await refused(call('describeTable', { tableName: 'none' }), 404);
  },

  async values() {
    const ts = Date.now();
    const at = Long.fromNumber(ts);
    await call('putRow', {
      tableName: table,
      condition: ignore(),
      primaryKey: key('values', 1),
      attributeColumns: [
        { blob: Buffer.from([0, 255]), timestamp: at },
        { bool: true, timestamp: at },
        { double: 0.1, timestamp: at },
        { int: Long.fromString('-9223372036854775808'), timestamp: at },
        { text: 'text 公司', timestamp: at },
      ],
    });
    const { row } = await call('getRow', { tableName: table, primaryKey: key('values', 1), maxVersions: 1 });
    assert.deepStrictEqual(plain(row), [['values', '1'], [
      ['blob', '00ff', ts], ['bool', 'true', ts], ['double', '0.1', ts], ['int', '-9223372036854775808', ts], ['text', 'text 公司', ts]]]);
    await call('deleteRow', { tableName: table, condition: ignore(), primaryKey: key('values', 1) });
    const gone = await call('getRow', { tableName: table, primaryKey: key('values', 1), maxVersions: 1 });
    assert.ok(!gone.row.primaryKey);
  },

  async versions() {
    const ts = Date.now();
    for (let i = 0; i < 5; i++) {
      await call('updateRow', {
        tableName: table,
        condition: ignore(),
        primaryKey: key('versions', 1),
        updateOfAttributeColumns: [{ PUT: [{ v: `${i}`, timestamp: Long.fromNumber(ts + i) }] }],
      });
    }
    const { row } = await call('getRow', { tableName: table, primaryKey: key('versions', 1), maxVersions: 10 });
    assert.deepStrictEqual(plain(row)[1], [['v', '4', ts + 4], ['v', '3', ts + 3], ['v', '2', ts + 2]]);
    await call('deleteRow', { tableName: table, condition: ignore(), primaryKey: key('versions', 1) });
  },

  async increments() {
    for (const want of ['2', '4']) {
      const { row } = await call('updateRow', {
        tableName: table,
        condition: ignore(),
        primaryKey: key('increments', 1),
        updateOfAttributeColumns: [{ INCREMENT: [{ i: Long.fromNumber(2) }] }],
        returnContent: { returnColumns: ['i'], returnType: TableStore.ReturnType.AfterModify },
      });
      assert.strictEqual(String(row.attributes[0].columnValue), want);
    }
    await call('deleteRow', { tableName: table, condition: ignore(), primaryKey: key('increments', 1) });
  },

  async conditions() {
    const put = (condition) => call('putRow', { tableName: table, condition, primaryKey: key('conditions', 1), attributeColumns: [{ c: 'a' }] });
    await refused(put(new TableStore.Condition(TableStore.RowExistenceExpectation.EXPECT_EXIST, null)), 403);
    await put(new TableStore.Condition(TableStore.RowExistenceExpectation.EXPECT_NOT_EXIST, null));
    const filter = (value) => {
      const both = new TableStore.CompositeCondition(TableStore.LogicalOperator.AND);
      both.addSubCondition(new TableStore.SingleColumnCondition('c', value, TableStore.ComparatorType.EQUAL));
      both.addSubCondition(new TableStore.SingleColumnCondition('none', 'x', TableStore.ComparatorType.EQUAL));
      return new TableStore.Condition(TableStore.RowExistenceExpectation.EXPECT_EXIST, both);
    };
    await refused(put(filter('b')), 403);
    await put(filter('a'));
    await call('deleteRow', { tableName: table, condition: ignore(), primaryKey: key('conditions', 1) });
  },

  async batchesAndRanges() {
    const wanted = [];
    for (let batch = 0; batch < 5; batch++) {
      const rows = [];
      for (let i = 0; i < 100; i++) {
        const n = batch * 100 + i - 250;
        rows.push({ type: 'PUT', condition: ignore(), primaryKey: key('range', n), attributeColumns: [{ a: `value ${n}` }, { b: Buffer.from([i]) }] });
        wanted.push([n, `value ${n}`]);
      }
      const { tables } = await call('batchWriteRow', { tables: [{ tableName: table, rows }] });
      assert.ok(tables.every((r) => r.isOk), JSON.stringify(tables.find((r) => !r.isOk)));
    }
    for (const direction of [TableStore.Direction.FORWARD, TableStore.Direction.BACKWARD]) {
      const got = [];
      const forward = direction === TableStore.Direction.FORWARD;
      let start = [{ s: forward ? INF_MIN : INF_MAX }, { n: forward ? INF_MIN : INF_MAX }];
      const end = [{ s: forward ? INF_MAX : INF_MIN }, { n: forward ? INF_MAX : INF_MIN }];
      while (start) {
        const data = await call('getRange', { tableName: table, direction, maxVersions: 1, inclusiveStartPrimaryKey: start, exclusiveEndPrimaryKey: end, limit: 70 });
        for (const row of data.rows) {
          got.push([Number(row.primaryKey[1].value), row.attributes[0].columnValue]);
        }
        const next = data.nextStartPrimaryKey;
        start = next && next.length ? next.map((c) => ({ [c.name]: c.value })) : null;
      }
      assert.deepStrictEqual(got, forward ? wanted : wanted.slice().reverse());
    }
    const { tables } = await call('batchGetRow', { tables: [{ tableName: table, primaryKey: [key('range', 0), key('range', 9999), key('range', -1)], maxVersions: 1 }] });
    assert.deepStrictEqual(tables[0].map((r) => r.attributes && r.attributes[0].columnValue), ['value 0', null, 'value -1']);
  },

  // The SDK turns a stream on and sees that it is; it has no way to read one.
  async streams() {
    await call('createTable', {
      tableMeta: { tableName: 'node_stream', primaryKey: [{ name: 's', type: 'STRING' }] },
      reservedThroughput: { capacityUnit: { read: 0, write: 0 } },
      tableOptions: { timeToLive: -1, maxVersions: 1 },
      streamSpecification: { enableStream: true, expirationTime: 24 },
    });
    const { streamDetails } = await call('describeTable', { tableName: 'node_stream' });
    assert.ok(streamDetails.enableStream && streamDetails.streamId);
    assert.strictEqual(streamDetails.expirationTime, 24);
    await call('deleteTable', { tableName: 'node_stream' });
  },

  // Indexes made with the table and later, with and without the rows that were
  // there, of both kinds; each is read as a table in both directions.
  async secondaryIndexes() {
    const tableName = 'node_indexed';
    await call('createTable', {
      tableMeta: {
        tableName,
        primaryKey: [{ name: 's', type: 'STRING' }, { name: 'n', type: 'INTEGER' }],
        definedColumn: [{ name: 'city', type: TableStore.DefinedColumnType.DCT_STRING }, { name: 'age', type: TableStore.DefinedColumnType.DCT_INTEGER }],
      },
      reservedThroughput: { capacityUnit: { read: 0, write: 0 } },
      tableOptions: { timeToLive: -1, maxVersions: 1 },
      indexMetas: [{ name: 'node_by_city', primaryKey: ['city'], definedColumn: ['age'] }],
    });
    const cities = ['rome', 'bern', 'oslo'];
    const put = (n) => call('putRow', {
      tableName,
      condition: ignore(),
      primaryKey: key(`p${n % 2}`, n),
      attributeColumns: [{ city: cities[n % 3] }, { age: Long.fromNumber(100 - n) }, { other: 'x' }],
    });
    for (let n = 0; n < 10; n++) {
      await put(n);
    }
    const create = (name, primaryKey, more) => call('createIndex', { mainTableName: tableName, indexMeta: { name, primaryKey, definedColumn: [], ...more }, includeBaseData: more.includeBaseData });
    await create('node_by_age', ['age'], { includeBaseData: true, definedColumn: ['city'] });
    await create('node_late', ['city', 'age'], { includeBaseData: false });
    await create('node_local', ['s', 'age'], { includeBaseData: true, indexType: TableStore.IndexType.IT_LOCAL_INDEX, indexUpdateMode: TableStore.IndexUpdateMode.IUM_SYNC_INDEX });
    let metas = [];
    do {
      ({ indexMetas: metas } = await call('describeTable', { tableName }));
    } while (metas.some((m) => m.indexSyncPhase !== TableStore.SyncPhase.INCR));
    assert.deepStrictEqual(metas.map((m) => [m.name, m.primaryKey[0], m.indexType, m.indexUpdateMode]),
      [['node_by_city', 'city', 0, 0], ['node_by_age', 'age', 0, 0], ['node_late', 'city', 0, 0], ['node_local', 's', 1, 1]]);
    await put(10);

    const scan = async (index, columns, direction) => {
      const forward = direction === TableStore.Direction.FORWARD;
      const bound = (value) => columns.map((name) => ({ [name]: value }));
      const rows = [];
      let start = bound(forward ? INF_MIN : INF_MAX);
      while (start) {
        const data = await call('getRange', { tableName: index, direction, maxVersions: 1, inclusiveStartPrimaryKey: start, exclusiveEndPrimaryKey: bound(forward ? INF_MAX : INF_MIN), limit: 4 });
        rows.push(...data.rows.map((row) => [row.primaryKey, row.attributes].map((cells) => cells.map((c) => String(c.value ?? c.columnValue)).join(' ')).join(': ')));
        const next = data.nextStartPrimaryKey;
        start = next && next.length ? next.map((c) => ({ [c.name]: c.value })) : null;
      }
      return rows;
    };
    const all = [...Array(11).keys()].map((n) => ({ n, s: `p${n % 2}`, city: cities[n % 3], age: 100 - n }));
    const by = (...columns) => (a, b) => columns.map((c) => (a[c] < b[c] ? -1 : a[c] > b[c] ? 1 : 0)).find((d) => d) || 0;
    for (const [index, columns, text, rows] of [
      ['node_by_city', ['city', 's', 'n'], (r) => `${r.city} ${r.s} ${r.n}: ${r.age}`, all],
      ['node_by_age', ['age', 's', 'n'], (r) => `${r.age} ${r.s} ${r.n}: ${r.city}`, all],
      ['node_late', ['city', 'age', 's', 'n'], (r) => `${r.city} ${r.age} ${r.s} ${r.n}: `, all.slice(10)],
      ['node_local', ['s', 'age', 'n'], (r) => `${r.s} ${r.age} ${r.n}: `, all],
    ]) {
      const wanted = rows.slice().sort(by(...columns)).map(text);
      assert.deepStrictEqual(await scan(index, columns, TableStore.Direction.FORWARD), wanted, index);
      assert.deepStrictEqual(await scan(index, columns, TableStore.Direction.BACKWARD), wanted.reverse(), index);
    }
    const { row } = await call('getRow', { tableName: 'node_by_city', primaryKey: [{ city: 'bern' }, { s: 'p1' }, { n: Long.fromNumber(7) }], maxVersions: 1 });
    assert.strictEqual(String(row.attributes[0].columnValue), '93');
    await refused(call('putRow', { tableName: 'node_by_city', condition: ignore(), primaryKey: [{ city: 'x' }, { s: 'x' }, { n: Long.fromNumber(1) }], attributeColumns: [] }), 400);
    for (const m of metas) {
      await call('dropIndex', { mainTableName: tableName, indexName: m.name });
    }
    assert.strictEqual((await call('describeTable', { tableName })).indexMetas.length, 0);
    await call('deleteTable', { tableName });
  },

  async searchIndexes() {
    const [tableName, indexName] = ['node_searched', 'node_search'];
    await call('createTable', {
      tableMeta: { tableName, primaryKey: [{ name: 's', type: 'STRING' }] },
      reservedThroughput: { capacityUnit: { read: 0, write: 0 } },
      tableOptions: { timeToLive: -1, maxVersions: 1 },
    });
    const field = (fieldName, fieldType, more) => ({ fieldName, fieldType, index: true, ...more });
    await call('createSearchIndex', {
      tableName,
      indexName,
      schema: {
        fieldSchemas: [
          field('a', TableStore.FieldType.KEYWORD),
          field('text', TableStore.FieldType.TEXT, { analyzer: 'split', analyzerParameter: { delimiter: ',' } }),
          field('list', TableStore.FieldType.NESTED, { fieldSchemas: [field('n', TableStore.FieldType.LONG)] }),
        ],
      },
    });
    for (let i = 0; i < 25; i++) {
      await call('putRow', { tableName, condition: ignore(), primaryKey: [{ s: `k${i + 10}` }], attributeColumns: [{ a: `v${i}` }, { other: 'x' }] });
    }
    const { indices } = await call('listSearchIndex', { tableName });
    assert.deepStrictEqual(indices.map((i) => i.indexName), [indexName]);
    const described = await call('describeSearchIndex', { tableName, indexName });
    assert.deepStrictEqual(described.schema.fieldSchemas.map((f) => f.fieldName), ['a', 'text', 'list']);
    assert.strictEqual(described.schema.fieldSchemas[1].analyzerParameter.delimiter, ',');
    assert.strictEqual(described.schema.fieldSchemas[2].fieldSchemas[0].fieldName, 'n');
    assert.strictEqual(described.indexStatus.status, TableStore.IndexStatus.RUNNING);
    assert.strictEqual(Number(described.meteringInfo.rowCount), 25);
    const columnToGet = { returnType: TableStore.ColumnReturnType.RETURN_ALL_FROM_INDEX };
    const wanted = [...Array(25).keys()].map((i) => [`k${i + 10}`, `a=v${i}`]);
    const plainRow = (row) => [row.primaryKey[0].value, row.attributes.map((a) => `${a.columnName}=${a.columnValue}`).join()];

    const found = [];
    let token = null;
    do {
      const data = await call('search', { tableName, indexName, columnToGet, searchQuery: { limit: 10, token, query: { queryType: TableStore.QueryType.MATCH_ALL_QUERY }, getTotalCount: true } });
      assert.strictEqual(Number(data.totalCounts), 25);
      found.push(...data.rows.map(plainRow));
      token = data.nextToken;
    } while (token && token.length);
    assert.deepStrictEqual(found, wanted);

    const { sessionId, splitsSize } = await call('computeSplits', { tableName, searchIndexSplitsOptions: { indexName } });
    assert.strictEqual(splitsSize, 1);
    const scanned = [];
    const scanQuery = { query: { queryType: TableStore.QueryType.MATCH_ALL_QUERY }, limit: 10, aliveTime: 30, currentParallelId: 0, maxParallel: splitsSize };
    do {
      const data = await call('parallelScan', { tableName, indexName, columnToGet, sessionId, scanQuery });
      scanned.push(...data.rows.map(plainRow));
      scanQuery.token = data.nextToken;
    } while (scanQuery.token && scanQuery.token.length);
    assert.deepStrictEqual(scanned, wanted);

    await refused(call('deleteTable', { tableName }), 400);
    await call('deleteSearchIndex', { tableName, indexName });
    await call('deleteTable', { tableName });
  },

  async cleanUp() {
    await call('deleteTable', { tableName: table });
    await refused(call('deleteTable', { tableName: table }), 404);
  },
};

(async () => {
  for (const [name, check] of Object.entries(checks)) {
    try {
      await check();
      console.log(`PASS  node ${name}`);
    } catch (err) {
      console.log(`FAIL  node ${name}`);
      console.error(err);
      process.exit(1);
    }
  }
})();
