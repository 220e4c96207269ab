// Compare: base and adapters side by side, several turns, sampling, stop.
import { strict as assert } from 'node:assert';
import { after, before, test } from 'node:test';
import { join } from 'node:path';

import { greedy } from './lib/native.mjs';
import { gallery, healthy, link, until, visit } from './lib/visit.mjs';

const adapters = join(process.env.QLOOM_WWW, 'adapters');
let here;

before(async () => {
  here = await visit({ fragment: link({ ...gallery('Sentiment', 'Instructions'), max_new_tokens: 8 }) });
  await here.ui.ready('Sentiment', 'Instructions');
});
after(async () => { await here?.close(); });

test('greedy answers are the trainer\'s, word for word, and differing words are marked', async () => {
  const { ui } = here;
  const prompt = 'Is the soup warm?';
  const answers = await ui.ask(prompt);
  for (const name of ['Sentiment', 'Instructions']) {
    const native = await greedy({ adapter: join(adapters, name.toLowerCase()) }, prompt, 8);
    assert.equal(answers.Base.text, native.base);
    assert.equal(answers[name].text, native.adapted);
  }
  assert.equal(await ui.column(1, 'Base').getByRole('mark').count(), 0);
  assert.ok(await ui.column(1, 'Sentiment').getByRole('mark').count() > 0);
});

test('a second turn continues the conversation of every model', async () => {
  const { ui } = here;
  const second = await ui.ask('And the bread?', 2);
  assert.deepEqual(Object.keys(second), ['Base', 'Sentiment', 'Instructions']);
  // The same question without a history is answered otherwise by at least one model, or the turns were not used.
  await ui.region('Compare').getByRole('button', { name: 'Start over' }).click();
  await until('starting over', async () => await ui.page.getByRole('article', { name: /^Question/ }).count() === 0);
  const alone = await ui.ask('And the bread?');
  assert.notDeepEqual(Object.values(alone).map((a) => a.text), Object.values(second).map((a) => a.text));
});

test('both adapters stacked are a column of their own; the base can be left out', async () => {
  const { ui } = here;
  const models = ui.region('Compare').getByRole('group', { name: 'Models' });
  await models.getByRole('checkbox', { name: 'A and B stacked' }).check();
  await models.getByRole('checkbox', { name: 'Base', exact: true }).uncheck();
  await ui.region('Compare').getByRole('button', { name: 'Start over' }).click();
  const answers = await ui.ask('Is the soup warm?');
  assert.deepEqual(Object.keys(answers), ['Sentiment', 'Instructions', 'Sentiment + Instructions']);
  await models.getByRole('checkbox', { name: 'A and B stacked' }).uncheck();
  await models.getByRole('combobox', { name: 'Adapter B' }).selectOption('');
  await models.getByRole('checkbox', { name: 'Base', exact: true }).check();
});

test('sampling: the same seed draws the same text, another seed another; what is out of range is said', async () => {
  const { ui } = here;
  await ui.unfold('Compare', 'Sampling and template');
  const field = (name) => ui.region('Compare').getByRole('spinbutton', { name });
  const set = async (name, value) => { await field(name).fill(String(value)); await field(name).blur(); };
  const again = async () => {
    await ui.region('Compare').getByRole('button', { name: 'Start over' }).click();
    return (await ui.ask('Is the soup warm?')).Base.text;
  };
  await set('Temperature', 1.5);
  await set('Seed', 3);
  const first = await again();
  assert.equal(await again(), first);
  await set('Seed', 4);
  assert.notEqual(await again(), first);
  await set('Top-p', 7);
  await ui.region('Compare').getByRole('alert').filter({ hasText: 'top_p' }).waitFor();
  await set('Top-p', 1);
});

test('stop ends the answers where they are, and the next prompt is answered', async () => {
  const { ui } = here;
  const tokens = ui.region('Compare').getByRole('spinbutton', { name: 'New tokens, at most' });
  await tokens.fill('400');
  await tokens.blur();
  await ui.region('Compare').getByRole('checkbox', { name: /chat template/ }).uncheck();
  await ui.prompt.fill('Once upon a time');
  await ui.send.click();
  await until('the first words', async () => (await ui.column(1, 'Base').locator('.answer').textContent()).length > 0);
  await ui.region('Compare').getByRole('button', { name: 'Stop' }).click();
  const answers = await ui.answers();
  assert.match(answers.Base.foot, /stopped/);
  await tokens.fill('4');
  await tokens.blur();
  assert.match((await ui.ask('Once upon a time')).Base.foot, /^4 tokens/);
});

test('a prompt of the gallery is taken by a click', async () => {
  const { ui } = here;
  const chip = ui.page.getByRole('list', { name: 'Prompts to try' }).getByRole('button').last();
  const parts = (await chip.textContent()).split('…').map((part) => part.trim());
  await chip.click();
  const words = (await ui.prompt.inputValue()).split(/\s+/).join(' ');
  for (const part of parts) assert.ok(words.includes(part), `${part} in ${words}`);
  await healthy(here);
});
