// Evaluate: the trainer's scores on the same file, the table of examples, exports, cancel, and losses by token.
import { strict as assert } from 'node:assert';
import { readFile, writeFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { join } from 'node:path';

import { folder, scores } from './lib/native.mjs';
import { gallery, healthy, link, until, visit } from './lib/visit.mjs';

const data = join(process.env.QLOOM_WWW, 'data/sentiment.jsonl');
let [here, region, small] = [];

before(async () => {
  const rows = (await readFile(data, 'utf8')).trim().split('\n').slice(0, 9);
  small = join(await folder(), 'nine.jsonl');
  await writeFile(small, `${rows.join('\n')}\n`);
  here = await visit({ fragment: link(gallery('Sentiment')) });
  await here.ui.ready('Sentiment');
  region = here.ui.region('Evaluate');
});
after(async () => { await here?.close(); });

const button = (name) => region.getByRole('button', { name, exact: true });
const status = () => region.getByRole('status').allTextContents();

test('scores on a file are the trainer\'s, for base and adapter', async () => {
  const { ui } = here;
  await ui.choose('Evaluate', small);
  for (const name of ['Perplexity', 'Accuracy', 'Macro-F1']) await region.getByRole('checkbox', { name, exact: true }).check();
  await ui.unfold('Evaluate', 'Limits');
  const tokens = region.getByRole('spinbutton', { name: 'New tokens of a generated answer' });
  await tokens.fill('8');
  await tokens.blur();
  await button('Evaluate').click();
  await region.getByRole('table').first().waitFor({ timeout: 120_000 });
  const { name, bytes } = await ui.download(() => button('Download as JSON').click());
  assert.equal(name, 'evaluation.json');
  const native = await scores({ adapter: join(process.env.QLOOM_WWW, 'adapters/sentiment') }, small,
    ['perplexity', 'accuracy', 'macro_f1'], ['--max-new-tokens', '8']);
  const { columns } = JSON.parse(bytes);
  assert.deepEqual(columns.map((column) => column.name), ['Base', 'Sentiment']);
  for (const [at, expected] of [native.base, native.adapted].entries()) {
    const { name: label, scores: found } = columns[at];
    for (const metric of ['perplexity', 'accuracy', 'macro_f1']) {
      const apart = Math.abs(found[metric] - expected[metric]);
      assert.ok(apart <= 1e-3 * Math.max(1, expected[metric]), `${label} ${metric}: ${found[metric]}, the trainer's ${expected[metric]}`);
    }
    assert.deepEqual(found.confusion_matrix, expected.confusion_matrix, label);
    assert.equal(found.tokens, expected.tokens, label);
  }
  const confusion = region.getByRole('table').filter({ hasText: 'true class down, predicted across' });
  assert.equal(await confusion.count(), 2);
});

test('the table of examples is sorted, searched and filtered, and downloaded as CSV', async () => {
  const { ui } = here;
  const table = region.getByRole('group', { name: 'Examples', exact: true }).getByRole('table');
  const rows = table.locator('tbody tr');
  assert.equal(await rows.count(), 9);
  await table.getByRole('button', { name: 'Base loss' }).click();
  const head = table.getByRole('columnheader', { name: 'Base loss' });
  const order = await head.getAttribute('aria-sort');
  assert.ok(['ascending', 'descending'].includes(order), order);
  const at = await table.getByRole('columnheader').evaluateAll((all) => all.findIndex((h) => h.textContent === 'Base loss'));
  const losses = (await rows.evaluateAll((all, cell) => all.map((row) => row.children[cell].textContent), at)).map(Number);
  const sorted = [...losses].sort((a, b) => (order === 'ascending' ? a - b : b - a));
  assert.deepEqual(losses, sorted);
  await region.getByRole('combobox', { name: 'Show' }).selectOption('gained');
  const gained = await rows.count();
  assert.ok(gained > 0 && gained < 9, `${gained} of nine were gained`);
  await region.getByRole('combobox', { name: 'Show' }).selectOption('all');
  await region.getByRole('searchbox', { name: 'Search' }).fill('green cover');
  await until('the search', async () => await rows.count() === 1);
  await region.getByRole('searchbox', { name: 'Search' }).fill('');
  const { name, bytes } = await ui.download(() => button('Download as CSV').click());
  assert.equal(name, 'per_example.csv');
  assert.match(bytes.toString(), /green cover/);
});

test('an evaluation can be cancelled, and says so', async () => {
  await region.getByRole('combobox', { name: 'Data of this site' }).selectOption({ label: 'Instructions, held out (240 examples)' });
  await button('Evaluate').click();
  await region.getByRole('progressbar', { name: 'Evaluation' }).waitFor();
  await button('Cancel').click();
  await until('the end', async () => (await status()).some((text) => /Stopped/.test(text)));
  assert.ok(await button('Evaluate').isEnabled());
});

test('a text is shaded by the loss of its tokens, in every model', async () => {
  await region.getByRole('textbox', { name: 'Text to score' }).fill('The soup in the kitchen was warm and good.');
  await button('Shade the text').click();
  const columns = region.locator('.shading .column');
  await until('the shading', async () => await columns.count() === 2);
  for (const at of [0, 1]) {
    const text = await columns.nth(at).locator('.answer').textContent();
    assert.match(text, /The soup in the kitchen was warm and good\./);
    assert.match(await columns.nth(at).textContent(), /mean loss [\d.]+, perplexity [\d.]+/);
    assert.ok(await columns.nth(at).locator('[class*="shade-"]').count() > 5);
  }
  await healthy(here);
});
