// Merge: sliders, a method with its parameters, the column that follows, and an export equal to `trainer merge`.
import { strict as assert } from 'node:assert';
import { after, before, test } from 'node:test';
import { join } from 'node:path';

import { merged } from './lib/native.mjs';
import * as safetensors from './lib/safetensors.mjs';
import { gallery, healthy, link, until, visit } from './lib/visit.mjs';
import { unzip } from './lib/zip.mjs';

const folder = (name) => join(process.env.QLOOM_WWW, 'adapters', name);
let here;
let region;

before(async () => {
  here = await visit({ fragment: link(gallery('Sentiment', 'Instructions')) });
  await here.ui.ready('Sentiment', 'Instructions');
  region = here.ui.region('Merge');
});
after(async () => { await here?.close(); });

const member = (name) => region.getByRole('checkbox', { name, exact: true });
const slider = (name) => region.getByRole('slider', { name: `Weight of ${name}, slider` });
const weight = (name) => region.getByRole('spinbutton', { name: `Weight of ${name}`, exact: true });
const command = () => region.getByRole('group', { name: 'Command' }).textContent();

/** Waits until the merge that the fields describe is made: the command names it and nothing is under way. */
async function settled(...words) {
  await until(`a merge by ${words.join(' ')}`, async () => {
    const failed = (await region.getByRole('alert').allTextContents()).join('');
    assert.equal(failed, '', 'the section says what failed');
    const text = await command();
    return words.every((word) => text.includes(word));
  });
  await here.page.waitForTimeout(400); // longer than the page waits for the hand to rest
  await until('merging', async () => !(await region.getByRole('status').allTextContents()).includes('Merging'));
}

async function exported() {
  const { ui } = here;
  const { bytes } = await ui.download(() => region.getByRole('button', { name: 'Download the merge as a PEFT zip' }).click());
  const files = unzip(bytes);
  const at = Object.keys(files).find((path) => path.endsWith('adapter_model.safetensors'));
  return safetensors.read(files[at]);
}

/** Equal names, types, shapes and bytes. */
function same(found, expected) {
  assert.deepEqual(Object.keys(found).sort(), Object.keys(expected).sort());
  for (const [name, tensor] of Object.entries(expected)) {
    assert.deepEqual([found[name].dtype, found[name].shape], [tensor.dtype, tensor.shape], name);
    assert.ok(found[name].bytes.equals(tensor.bytes), `${name} has the same bytes`);
  }
}

test('the merge is made as sliders move, its column follows, and its distance from the exact one is shown', async () => {
  const { ui, page } = here;
  await ui.ask('Is the soup warm?');
  await member('Sentiment').check();
  await member('Instructions').check();
  await settled('--weights 1,1');
  await ui.column(1, 'Merge').waitFor();
  const before = (await ui.answers()).Merge.text;
  await slider('Sentiment').focus();
  for (let press = 0; press < 6; press += 1) await page.keyboard.press('ArrowLeft');
  assert.equal(await weight('Sentiment').inputValue(), '0.7');
  await slider('Instructions').fill('-1');
  await settled('--weights 0.7,-1');
  await until('the column following', async () => (await ui.answers()).Merge.text !== before);
  const table = region.getByRole('table');
  assert.match(await table.textContent(), /Distance from the exact weighted sum/);
  assert.ok(await table.getByRole('row').count() > 5);
});

test('DARE with TIES, with a seed: the same tensors as the trainer\'s', async () => {
  await region.getByRole('combobox', { name: 'Method' }).selectOption('dare_ties');
  await weight('Instructions').fill('0.3');
  await weight('Instructions').blur();
  const density = region.getByRole('spinbutton', { name: 'Density' });
  await density.fill('0.6');
  await density.blur();
  const seed = region.getByRole('spinbutton', { name: 'Seed' });
  await seed.fill('7');
  await seed.blur();
  await settled('dare_ties', '0.7,0.3', '0.6', '7');
  const adapters = ['--adapters', folder('sentiment'), folder('instructions'), '--weights', '0.7,0.3'];
  same(await exported(), await merged([...adapters, '--method', 'dare_ties', '--density', '0.6', '--seed', '7']));
});

test('the command shown makes the same adapter on the command line', async () => {
  await region.getByRole('combobox', { name: 'Method' }).selectOption('linear');
  await settled('linear', '0.7,0.3');
  const shown = (await command()).trim().split(/\s+/);
  const at = shown.indexOf('merge');
  const args = shown.slice(at + 1).map((word) => word.replaceAll(/['"]/g, ''));
  const out = args.indexOf('--out');
  const kept = out < 0 ? args : args.filter((_, index) => index !== out && index !== out + 1);
  const named = kept.map((word) => (['Sentiment', 'Instructions'].includes(word) ? folder(word.toLowerCase()) : word));
  same(await exported(), await merged(named));
});

test('the exact sum, truncated: the same tensors as the trainer\'s', async () => {
  await region.getByRole('checkbox', { name: 'Exact weighted sum' }).check();
  await settled('--exact');
  const adapters = ['--adapters', folder('sentiment'), folder('instructions'), '--weights', '0.7,0.3'];
  same(await exported(), await merged([...adapters, '--exact']));
  await healthy(here);
});
