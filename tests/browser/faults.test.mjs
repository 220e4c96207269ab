// What goes wrong on the way: a cut network, a corrupt file, no storage, a closed tab, a lost device.
import { strict as assert } from 'node:assert';
import { readFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { join } from 'node:path';

import { large } from './lib/bases.mjs';
import { launch, open } from './lib/browser.mjs';
import { Engine } from './lib/engine.mjs';
import { gallery, healthy, link, site, Ui, until, visit } from './lib/visit.mjs';

const shards = ['/large/model-00001-of-00002.safetensors', '/large/model-00002-of-00002.safetensors'];
const piece = 8 << 20;
let [served, browser] = [];

before(async () => {
  served = await site({ '/large/': await large() });
  browser = await launch();
});
after(async () => { await browser?.close(); await served?.close(); });

const start = (range) => Number(/bytes=(\d+)-/.exec(range)?.[1] ?? 0);

/** Removes what is stored of bases, and what the server remembers. */
async function fresh(engine) {
  await engine.ask({ do: 'clear_cache' });
  served.requests.length = 0;
  served.fault = () => null;
}

/** Opens the large base on the page, as a visitor who follows a link to it. */
async function follow(ui) {
  await ui.region('This link wants to load files from elsewhere').getByRole('button', { name: 'Load them' }).click();
}

test('a shard that is cut off at its half is taken up where it stopped', async () => {
  const engine = await Engine.start(browser.context, served);
  await fresh(engine);
  let cuts = 0;
  served.fault = ({ path, range }) => {
    if (path !== shards[1] || start(range) < piece || cuts > 0) return null;
    cuts += 1;
    return { cutAt: 1_000_000 };
  };
  await engine.base('large/');
  assert.equal(cuts, 1, 'the second piece of the second shard was cut');
  const starts = served.of(shards[1]).map(({ range }) => start(range));
  const resumed = starts.filter((at) => at > piece);
  assert.equal(resumed.length, 1, `asked for from ${starts}`);
  assert.ok(resumed[0] <= piece + 1_000_000, `goes on at ${resumed[0]}`);
  await engine.close();
});

test('a tab that is closed while loading: the next one goes on with what had come, and shows how far it is', async () => {
  const engine = await Engine.start(browser.context, served);
  await fresh(engine);
  await engine.close();
  served.fault = ({ path }) => (shards.includes(path) ? { rate: 8 << 20 } : null);
  const fragment = link({ base: `url,${served.url}large/,large` });
  const first = await open(browser.context, served.url + fragment);
  await follow(new Ui(first.page));
  const bar = first.page.getByRole('progressbar', { name: 'Loading the base' });
  await bar.waitFor();
  await until('the second shard', async () => served.of(shards[1]).length > 0);
  assert.match(await first.page.locator('.progress').first().textContent(), /Downloading: [\d.]+ MiB of [\d.]+ MiB, [\d.]+ .?i?B\/s, .* left/);
  await first.page.close();
  served.requests.length = 0;
  served.fault = () => null;
  const second = await open(browser.context, served.url + fragment);
  const ui = new Ui(second.page);
  await follow(ui);
  await ui.ready();
  const again = served.of(shards[0]).filter(({ range }) => range !== 'bytes=0-0').map(({ range }) => range);
  assert.deepEqual(again, [], 'parts of the first shard that were asked for again');
  await healthy(second);
  await second.page.close();
});

test('a corrupt base is fetched once more, and then refused by its fingerprint', async () => {
  const { adapters: [{ base }] } = JSON.parse(await readFile(join(process.env.QLOOM_WWW, 'adapters/index.json')));
  const path = '/base/model.safetensors';
  const source = { from: 'url', url: `${served.url}base/`, name: 'base' };
  const load = { do: 'load_base', source, options: { fingerprint: base.fingerprint } };
  const engine = await Engine.start(browser.context, served);
  await fresh(engine);
  served.fault = (request) => (request.path === path && served.of(path).length === 1 ? { flipAt: 900_000 } : null);
  assert.equal((await engine.ask(load)).last.event, 'base_loaded');
  assert.ok(served.of(path).length > 1, 'it was fetched again');
  await fresh(engine);
  served.fault = (request) => (request.path === path ? { flipAt: 900_000 } : null);
  const { last } = await engine.ask(load, { fails: true });
  assert.equal(last.failure?.kind, 'integrity', JSON.stringify(last));
  assert.ok(last.failure.message.includes(base.fingerprint), last.failure.message);
  const whole = served.of(path).filter(({ range }) => range !== 'bytes=0-0');
  assert.equal(whole.length, 2, `fetched ${whole.map(({ range }) => range)}`);
  await engine.close();
});

test('an adapter whose bytes changed on the server is fetched once more, and then refused by its hash', async () => {
  const path = '/adapters/sentiment/adapter_model.safetensors';
  served.requests.length = 0;
  served.fault = (request) => (request.path === path ? { flipAt: 200_000 } : null);
  const opened = await open(browser.context, served.url + link());
  const ui = new Ui(opened.page);
  await ui.ready();
  await ui.card('Sentiment').getByRole('button', { name: 'Load Sentiment' }).click();
  await ui.region('Adapters').getByRole('alert').filter({ hasText: 'A file is not what its hash says.' }).waitFor();
  assert.equal(await ui.resident('Sentiment').count(), 0);
  assert.equal(served.of(path).filter(({ range }) => range !== 'bytes=0-0').length, 2);
  served.fault = () => null;
  await ui.card('Sentiment').getByRole('button', { name: 'Load Sentiment' }).click();
  await ui.resident('Sentiment').waitFor();
  await healthy(opened);
  await opened.page.close();
});

test('a server that is not there is said to be, and the page can try again', async () => {
  const engine = await Engine.start(browser.context, served);
  await fresh(engine);
  await engine.close();
  served.fault = ({ path }) => (path.startsWith('/base/') ? { status: 500 } : null);
  const opened = await open(browser.context, served.url + link());
  const ui = new Ui(opened.page);
  await ui.base.getByRole('alert').filter({ hasText: 'The network or the server failed.' }).waitFor();
  served.fault = () => null;
  await ui.unfold('See what an adapter changes, on your own machine', 'Load another base');
  await ui.base.getByRole('button', { name: 'Load the small base' }).click();
  await ui.ready();
  await opened.page.close();
});

test('a lost device: the worker starts again with its base, its adapters and its merge', async () => {
  served.fault = () => null;
  const opened = await open(browser.context, served.url + link({ ...gallery('Sentiment', 'Instructions'), merge: ['Sentiment,0.5', 'Instructions,0.5'] }), async (page) => {
    await page.addInitScript(() => {
      globalThis.workers = [];
      globalThis.Worker = class extends Worker {
        constructor(...all) { super(...all); globalThis.workers.push(this); }
      };
    });
  });
  const { page } = opened;
  const ui = new Ui(page);
  await ui.ready('Sentiment', 'Instructions');
  await ui.region('Merge').getByRole('button', { name: 'Download the merge as a PEFT zip' }).waitFor();
  const before = await ui.ask('Is the soup warm?');
  await page.evaluate(() => globalThis.workers.at(-1).postMessage([JSON.stringify({ id: 0, body: { do: 'lose_device' } })]));
  await until('another worker', async () => await page.evaluate(() => globalThis.workers.length) === 2);
  await ui.ready('Sentiment', 'Instructions');
  await until('the merge', async () => await ui.region('Compare').getByRole('checkbox', { name: 'Merge', exact: true }).count() === 1);
  await ui.region('Compare').getByRole('button', { name: 'Start over' }).click();
  const again = await ui.ask('Is the soup warm?');
  const texts = (answers) => Object.entries(answers).map(([model, { text }]) => [model, text]);
  assert.deepEqual(texts(again), texts(before));
  await healthy(opened);
  await page.close();
});

test('where the browser stores nothing, memory serves, and the page says so', async () => {
  const here = await visit({
    server: served,
    fragment: link(),
    prepare: async (page) => {
      const session = await page.context().newCDPSession(page);
      await session.send('Storage.overrideQuotaForOrigin', { origin: new URL(served.url).origin, quotaSize: 1 });
    },
  });
  await here.ui.ready();
  await here.ui.base.getByRole('list').filter({ hasText: /kept in memory until this tab closes/ }).waitFor();
  assert.ok((await here.ui.ask('Hello')).Base.text.length > 0);
  await here.close();
});
