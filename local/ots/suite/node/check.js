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
