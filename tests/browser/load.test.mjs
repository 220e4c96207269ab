// The first visit: the base loads, adapters come from the gallery, a first comparison runs, and another base takes its place.
import { strict as assert } from 'node:assert';
import { after, before, test } from 'node:test';
import { join } from 'node:path';

import { stories } from './lib/native.mjs';
import { recorder } from './lib/server.mjs';
import { healthy, until, visit } from './lib/visit.mjs';

/** What Chromium asks its maker on its own, page or no page. */
const chromium = /^(https?:\/\/)?(accounts\.google\.com|content-autofill\.googleapis\.com|clients2\.google\.com|update\.googleapis\.com|www\.google\.com)(:443|\/|$)/;
const real = stories();
let [here, hosts] = [];

before(async () => {
  hosts = await recorder();
  here = await visit({ mounts: real ? { '/stories/': real } : {}, args: [`--proxy-server=${hosts.url}`] });
});
after(async () => { await here?.close(); await hosts?.close(); });

test('a first visit shows base and adapters answering one prompt, and asks no other server', async () => {
  const { ui, site } = here;
  await ui.ready('Instructions', 'Sentiment');
  assert.match(await ui.status.textContent(), /WebGPU, f32.*qloom\/tiny-llama/);
  const facts = await ui.base.textContent();
  for (const fact of ['llama', '4 bits (NF4)', '512 tokens']) assert.ok(facts.includes(fact), `${fact} in ${facts}`);
  const answers = await ui.answers();
  assert.deepEqual(Object.keys(answers), ['Base', 'Instructions', 'Sentiment']);
  for (const [model, { text, foot }] of Object.entries(answers)) {
    assert.ok(text.trim().length > 0, `${model} wrote something`);
    assert.match(foot, /^\d+ tokens, [\d.,]+ tok\/s; first token after [\d.]+ m?s; /, model);
  }
  assert.notEqual(answers.Base.text, answers.Instructions.text);
  assert.equal(site.of('/base/model.safetensors').length > 0, true);
  assert.deepEqual(hosts.asked.filter((target) => !chromium.test(target)), [], 'requests that left the machine');
  await healthy(here);
});

test('another base from a URL takes its place, and adapters that do not fit are dropped and named', { skip: !real && 'no shared data' }, async () => {
  const { ui, site } = here;
  await ui.unfold('See what an adapter changes, on your own machine', 'Load another base');
  await ui.base.getByRole('textbox', { name: 'Folder at a URL' }).fill(`${site.url}stories`);
  await ui.base.getByRole('button', { name: 'Load from the URL' }).click();
  await until('the base', async () => /stories/.test(await ui.status.textContent()));
  await ui.ready();
  const notes = await ui.base.getByRole('list').first().textContent();
  assert.match(notes, /for another base and were dropped: Instructions, Sentiment/);
  assert.equal(await ui.resident('Sentiment').count(), 0);
  assert.match(await ui.card('Sentiment').getByRole('status').textContent(), /For another base/);
  await healthy(here);
});

test('a base of dropped files', async () => {
  const { ui } = here;
  const files = ['config.json', 'tokenizer.json', 'tokenizer_config.json', 'model.safetensors'];
  await ui.choose('See what an adapter changes, on your own machine', files.map((name) => join(process.env.QLOOM_WWW, 'base', name)));
  await until('the base', async () => !/stories|Loading/.test(await ui.status.textContent()));
  await ui.ready();
  assert.match(await ui.base.textContent(), /4 bits \(NF4\)/);
  await healthy(here);
});
