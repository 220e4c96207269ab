// Results: the files of a run of the trainer, with its own numbers.
import { strict as assert } from 'node:assert';
import { readFile, writeFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { join } from 'node:path';

import { folder, train } from './lib/native.mjs';
import { healthy, link, visit } from './lib/visit.mjs';

let [here, region, run] = [];

before(async () => {
  const rows = (await readFile(join(process.env.QLOOM_WWW, 'data/sentiment.jsonl'), 'utf8')).trim().split('\n');
  const work = await folder();
  const [learnt, held] = [join(work, 'train.jsonl'), join(work, 'eval.jsonl')];
  await writeFile(learnt, rows.slice(12, 52).join('\n'));
  await writeFile(held, rows.slice(0, 12).join('\n'));
  run = await train({
    lora: ['rank = 4', 'alpha = 8', 'target_modules = ["q_proj", "v_proj"]'],
    data: [`train = ${JSON.stringify(learnt)}`, `eval = ${JSON.stringify(held)}`, 'format = "classification"'],
    train: ['max_steps = 6', 'batch_size = 4', 'lr = 2e-3', 'eval_every = 3'],
    eval: ['metrics = ["perplexity", "accuracy", "macro_f1"]'],
  });
  here = await visit({ fragment: link() });
  region = here.ui.region('Results');
});
after(async () => { await here?.close(); });

/** As the page writes scores: four significant digits. */
const shown = (value) => (value < 10 ? value.toFixed(3) : value < 100 ? value.toFixed(2) : value.toFixed(1));
const opened = (name) => region.getByRole('article').filter({ has: here.page.getByRole('heading', { name: new RegExp(`${name}$`) }) });

test('metrics.json, scores.csv, log.jsonl and per_example.csv of a run are shown with its numbers', async () => {
  const files = ['metrics.json', 'scores.csv', 'log.jsonl', 'per_example.csv'];
  await here.ui.choose('Results', files.map((name) => join(run, name)));
  for (const name of files) await opened(name).waitFor();
  assert.deepEqual(await region.getByRole('alert').locator('li').allTextContents(), []);
  const metrics = JSON.parse(await readFile(join(run, 'metrics.json')));
  const text = await opened('metrics.json').textContent();
  const { base, adapted } = metrics.base ? metrics : Object.values(metrics.tasks ?? {})[0];
  for (const value of [base.perplexity, adapted.perplexity, adapted.accuracy]) assert.ok(text.includes(shown(value)), `${shown(value)} in ${text}`);
  const curve = opened('log.jsonl').getByRole('img');
  assert.match(await curve.getAttribute('aria-label'), /\d/);
  const rows = opened('per_example.csv').getByRole('group', { name: 'Examples', exact: true }).locator('tbody tr');
  assert.equal(await rows.count(), 12);
});

test('a file that is none of a run is refused by name; an opened one can be closed', async () => {
  await here.ui.choose('Results', { name: 'metrics.json', mimeType: 'application/json', buffer: Buffer.from('{"a": [1, 2') });
  await region.getByRole('alert').getByText('metrics.json').waitFor();
  await region.getByRole('button', { name: 'Close log.jsonl' }).click();
  await opened('log.jsonl').waitFor({ state: 'detached' });
  await healthy(here);
});
