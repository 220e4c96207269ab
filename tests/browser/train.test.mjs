// Train: a short run on typed examples, its curve, and an adapter that the trainer takes.
import { strict as assert } from 'node:assert';
import { mkdir, writeFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { dirname, join } from 'node:path';

import { folder, greedy } from './lib/native.mjs';
import { healthy, link, until, visit } from './lib/visit.mjs';
import { unzip } from './lib/zip.mjs';

let [here, region] = [];

before(async () => {
  here = await visit({ fragment: link({ max_new_tokens: 6 }) });
  await here.ui.ready();
  region = here.ui.region('Train');
});
after(async () => { await here?.close(); });

const number = async (name, value) => {
  const field = region.getByRole('spinbutton', { name });
  await field.fill(String(value));
  await field.blur();
};

test('a training can be stopped', async () => {
  await number('Steps', 500);
  await region.getByRole('button', { name: 'Train', exact: true }).click();
  await until('a step', async () => /Step \d+ of 500/.test(await region.textContent()));
  await region.getByRole('button', { name: 'Stop' }).click();
  await until('the end', async () => (await region.getByRole('status').allTextContents()).some((t) => /Stopped/.test(t)));
});

test('a short training descends, shows its curve, and the adapter answers like the trainer\'s copy of it', async () => {
  const { ui } = here;
  await number('Steps', 8);
  await number('Examples a step', 2);
  await number('Learning rate', 0.02);
  await region.getByRole('textbox', { name: 'Name of the adapter' }).fill('pirate');
  await region.getByRole('textbox', { name: 'Answer of example 1' }).fill('Ahoy! The lantern be in the cellar.');
  await region.getByRole('button', { name: 'Remove example 4' }).click();
  await region.getByRole('button', { name: 'Train', exact: true }).click();
  await region.getByText('is trained and loaded').waitFor({ timeout: 120_000 });
  const curve = region.getByRole('img');
  assert.match(await curve.getAttribute('aria-label'), /\d/);
  const { name, bytes } = await ui.download(() => region.getByRole('button', { name: 'Download it' }).click());
  assert.match(name, /\.zip$/);
  const out = await folder();
  const files = unzip(bytes);
  for (const [path, content] of Object.entries(files)) {
    await mkdir(dirname(join(out, path)), { recursive: true });
    await writeFile(join(out, path), content);
  }
  const config = Object.keys(files).find((path) => path.endsWith('adapter_config.json'));
  await region.getByRole('button', { name: 'Compare it with the base' }).click();
  const prompt = 'Where is the lantern?';
  const answers = await ui.ask(prompt);
  const native = await greedy({ adapter: dirname(join(out, config)) }, prompt, 6);
  assert.equal(answers.Base.text, native.base);
  assert.equal(answers.pirate.text, native.adapted);
  assert.notEqual(answers.pirate.text, answers.Base.text);
  await healthy(here);
});
