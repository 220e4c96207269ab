// The link: it restores what was shown, asks before it loads from elsewhere, and says what is wrong with it.
import { strict as assert } from 'node:assert';
import { after, before, test } from 'node:test';

import { open } from './lib/browser.mjs';
import { gallery, healthy, link, Ui, until, visit } from './lib/visit.mjs';

let here;

before(async () => {
  here = await visit({ fragment: link({ ...gallery('Sentiment', 'Instructions'), max_new_tokens: 5 }) });
  await here.ui.ready('Sentiment', 'Instructions');
});
after(async () => { await here?.close(); });

/** The page in another tab, opened with `fragment`. */
async function another(fragment) {
  const opened = await open(here.context, here.site.url + fragment);
  return { ...opened, ui: new Ui(opened.page) };
}

test('a link restores base, adapters, weights, prompt and settings', async () => {
  const { ui, page } = here;
  await ui.prompt.fill('Is the soup warm, & "good"?');
  const merge = ui.region('Merge');
  await merge.getByRole('checkbox', { name: 'Sentiment', exact: true }).check();
  await merge.getByRole('checkbox', { name: 'Instructions', exact: true }).check();
  await merge.getByRole('slider', { name: 'Weight of Sentiment, slider' }).fill('0.4');
  await ui.region('Compare').getByRole('combobox', { name: 'Adapter B' }).selectOption('');
  await ui.page.getByRole('banner').getByRole('button', { name: 'Copy a link to this' }).click();
  const fragment = await until('the link', async () => {
    const { hash } = new URL(page.url());
    return hash.includes('prompt=') && hash;
  });
  const second = await another(fragment);
  await second.ui.ready('Sentiment', 'Instructions');
  assert.equal(await second.ui.prompt.inputValue(), 'Is the soup warm, & "good"?');
  const compare = second.ui.region('Compare');
  assert.equal(await compare.getByRole('combobox', { name: 'Adapter A' }).inputValue(), 'Sentiment');
  const there = second.ui.region('Merge');
  assert.equal(await there.getByRole('spinbutton', { name: 'Weight of Sentiment', exact: true }).inputValue(), '0.4');
  await there.getByRole('button', { name: 'Download the merge as a PEFT zip' }).waitFor();
  await second.ui.unfold('Compare', 'Sampling and template');
  assert.equal(await compare.getByRole('spinbutton', { name: 'New tokens, at most' }).inputValue(), '5');
  assert.equal(await compare.getByRole('combobox', { name: 'Adapter B' }).inputValue(), '', 'an empty place stays empty');
  await healthy(second);
  await second.page.close();
});

test('a link to files elsewhere waits for the visitor', async () => {
  const elsewhere = 'http://127.0.0.1:9/model/';
  const second = await another(link({ base: `url,${elsewhere},model` }));
  const consent = second.ui.region('This link wants to load files from elsewhere');
  await consent.waitFor();
  assert.ok((await consent.textContent()).includes(elsewhere));
  assert.ok(await second.ui.send.isDisabled());
  await consent.getByRole('button', { name: 'Open without them' }).click();
  await second.ui.ready();
  assert.match(await second.ui.status.textContent(), /qloom\/tiny-llama/);
  await second.page.close();
});

test('a damaged link is said to be, and the page opens as on a first visit', async () => {
  const second = await another(link({ temperature: 'warm' }));
  await second.ui.base.getByRole('list').filter({ hasText: 'this link is damaged: `temperature` is "warm"' }).waitFor();
  await second.ui.ready();
  await healthy(second);
  await second.page.close();
});
