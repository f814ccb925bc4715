// The Node SDK's own tests, as they come with the package, against the local
// Tablestore. It prints a line for each: PASS, FAIL, or SKIP for one that stands on
// the list of those left out, which must not pass.
//
//	TABLESTORE_ENDPOINT=… TABLESTORE_INSTANCE=… TABLESTORE_ACCESS_KEY_ID=… TABLESTORE_ACCESS_KEY_SECRET=… node suite.js
'use strict';
const fs = require('fs');
const path = require('path');
const Mocha = require('mocha');

// The names that the SDK's tests know these by.
Object.assign(process.env, {
  endpoint: process.env.TABLESTORE_ENDPOINT,
  instancename: process.env.TABLESTORE_INSTANCE,
  accessKeyId: process.env.TABLESTORE_ACCESS_KEY_ID,
  secretAccessKey: process.env.TABLESTORE_ACCESS_KEY_SECRET,
});

const leftOut = new Map();
for (const line of fs.readFileSync(path.join(__dirname, 'leftout.txt'), 'utf8').split('\n')) {
  if (line.trim() && !line.startsWith('//')) {
    const [title, reason] = line.split(' :: ');
    leftOut.set(title.trim(), reason.trim());
  }
}

const say = console.log;
console.log = console.error = console.info = () => {}; // the tests print all that they get
const unseen = new Set(leftOut.keys());
let failed = 0;
const fail = (text) => {
  failed++;
  say(`FAIL  node suite: ${text}`);
};

const mocha = new Mocha({ reporter: class {} });
const folder = path.join(path.dirname(require.resolve('tablestore/package.json')), 'test');
const files = fs.readdirSync(folder, { recursive: true }).filter((name) => name.endsWith('.test.js')).sort();
files.forEach((name) => mocha.addFile(path.join(folder, name)));
mocha.loadFiles();

const drop = (suite) => {
  suite.tests = suite.tests.filter((test) => {
    const title = test.fullTitle().trim();
    const reason = leftOut.get(title) || '';
    if (!reason.startsWith('not run')) {
      return true;
    }
    unseen.delete(title);
    say(`SKIP  node suite: ${title}: ${reason}`);
    return false;
  });
  suite.suites.forEach(drop);
};
drop(mocha.suite);

let ran = 0;
const runner = mocha.run(() => {
  unseen.forEach((title) => fail(`${title} stands on the list of those left out and is no test`));
  if (ran === 0) {
    fail('no test ran');
  }
  process.exit(failed > 0 ? 1 : 0);
});
runner.on('pass', (test) => {
  ran++;
  const title = test.fullTitle().trim();
  if (leftOut.has(title)) {
    unseen.delete(title);
    fail(`${title} passes and stands on the list of those left out`);
  } else {
    say(`PASS  node suite: ${title}`);
  }
});
runner.on('fail', (test, err) => {
  ran++;
  const title = test.fullTitle().trim();
  unseen.delete(title);
  if (leftOut.has(title)) {
    say(`SKIP  node suite: ${title}: ${leftOut.get(title)}`);
  } else {
    fail(`${title}: ${err.message}`);
  }
});
runner.on('pending', (test) => fail(`${test.fullTitle()} skips itself`));
