// Everybody can use it: axe-core in every section, the keyboard alone, a phone's width, light and dark. Screenshots go to $OUT.
import { strict as assert } from 'node:assert';
import { mkdir, readFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { join } from 'node:path';

import { axe } from './lib/browser.mjs';
import { gallery, healthy, link, until, visit } from './lib/visit.mjs';

const sections = ['base', 'compare', 'adapters', 'merge', 'evaluate', 'train', 'results', 'about'];
const out = join(process.env.OUT, 'screenshots');
let here;

before(async () => {
  await mkdir(out, { recursive: true });
  here = await visit({ fragment: link({ ...gallery('Sentiment', 'Instructions'), max_new_tokens: 6 }) });
  await here.ui.ready('Sentiment', 'Instructions');
});
after(async () => { await here?.close(); });

/** What has the focus: a name, where it stands, and whether the focus can be seen. */
const focused = () => here.page.evaluate(() => {
  const node = document.activeElement;
  if (!node || node === document.body) return null;
  const drawn = [node, node.closest('label')].filter(Boolean).some((shown) => {
    const style = getComputedStyle(shown);
    return style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2 && style.visibility === 'visible';
  });
  const all = [...document.querySelectorAll('*')];
  const name = node.getAttribute('aria-label') ?? node.labels?.[0]?.textContent ?? node.textContent;
  return { name: `${node.tagName.toLowerCase()} ${name.trim().slice(0, 50)}`, at: all.indexOf(node), drawn };
});

test('by keyboard alone: every control is reached in order, its focus is seen, and nothing holds it', async () => {
  const { page } = here;
  await page.evaluate(() => { scrollTo(0, 0); document.activeElement?.blur(); });
  const reachable = await page.evaluate(() => [...document.querySelectorAll('a[href], button, input, select, textarea, summary, [tabindex="0"]')]
    .filter((node) => !node.disabled && node.tabIndex >= 0 && node.checkVisibility()).length);
  const way = [];
  for (let step = 0; step < reachable + 20; step += 1) {
    await page.keyboard.press('Tab');
    const found = await focused();
    if (!found || (way.length && found.at === way[0].at)) break;
    assert.notEqual(found.at, way.at(-1)?.at, `Tab leaves ${found.name}`);
    way.push(found);
  }
  assert.match(way[0].name, /Skip to the page/);
  assert.deepEqual(way.filter(({ drawn }) => !drawn).map(({ name }) => name), [], 'controls whose focus is not seen');
  const order = way.map(({ at }) => at);
  assert.deepEqual(order, [...order].sort((a, b) => a - b), 'the order of Tab is that of the page');
  assert.equal(way.length, reachable, 'every control was reached');
});

test('by keyboard alone: a prompt is sent, a slider moved, a merge exported, an evaluation begun', async () => {
  const { page, ui } = here;
  const tabTo = (what) => until(`Tab reaching ${what}`, async () => {
    if (new RegExp(what).test((await focused())?.name ?? '')) return true;
    await page.keyboard.press('Tab');
    return false;
  });
  await page.evaluate(() => { scrollTo(0, 0); document.activeElement?.blur(); });
  await tabTo('^textarea Prompt');
  await page.keyboard.press('Control+a');
  await page.keyboard.type('Is the soup warm?');
  await page.keyboard.press('Control+Enter');
  assert.ok((await ui.answers()).Sentiment.text.length > 0);
  await tabTo('^input Sentiment');
  await page.keyboard.press('Space');
  await tabTo('slider');
  for (let press = 0; press < 4; press += 1) await page.keyboard.press('ArrowLeft');
  await tabTo('^input Instructions');
  await page.keyboard.press('Space');
  await until('the merge', async () => /--weights 0.8,1/.test(await ui.region('Merge').textContent()));
  await tabTo('^button Download the merge');
  const { bytes } = await ui.download(() => page.keyboard.press('Enter'));
  assert.equal(bytes.subarray(0, 2).toString(), 'PK');
});

/** Fills every section, so that what is looked at is what a visitor sees. */
async function fill() {
  const { page, ui } = here;
  const evaluate = ui.region('Evaluate');
  const rows = (await readFile(join(process.env.QLOOM_WWW, 'data/sentiment.jsonl'), 'utf8')).split('\n').slice(0, 5);
  await ui.choose('Evaluate', { name: 'five.jsonl', mimeType: 'application/jsonl', buffer: Buffer.from(rows.join('\n')) });
  await ui.unfold('Evaluate', 'Limits');
  await evaluate.getByRole('spinbutton', { name: 'New tokens of a generated answer' }).fill('4');
  await evaluate.getByRole('button', { name: 'Evaluate', exact: true }).click();
  await evaluate.getByRole('table').first().waitFor({ timeout: 120_000 });
  await evaluate.getByRole('textbox', { name: 'Text to score' }).fill('The soup in the kitchen was warm and good.');
  await evaluate.getByRole('button', { name: 'Shade the text' }).click();
  await until('the shading', async () => await evaluate.locator('.shading .column').count() > 1);
  const train = ui.region('Train');
  await train.getByRole('spinbutton', { name: 'Steps', exact: false }).first().fill('6');
  await train.getByRole('button', { name: 'Train', exact: true }).click();
  await train.getByText('is trained and loaded').waitFor({ timeout: 120_000 });
  const metrics = join(process.env.QLOOM_WWW, 'adapters/sentiment/metrics.json');
  await ui.choose('Results', metrics);
  await ui.region('Results').getByRole('table').first().waitFor();
  await ui.unfold('Compare', 'Sampling and template');
  await ui.unfold('See what an adapter changes, on your own machine', 'Load another base');
  for (const details of await page.locator('.resident details:not([open]) summary').all()) await details.click();
}

for (const colorScheme of ['light', 'dark']) {
  for (const width of [1280, 390]) {
    test(`axe-core finds nothing, and nothing is wider than the page: ${colorScheme}, ${width} px`, async () => {
      const { page } = here;
      if (colorScheme === 'light' && width === 1280) await fill();
      await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
      await page.setViewportSize({ width, height: 900 });
      await page.evaluate(() => scrollTo(0, 0));
      await page.screenshot({ path: join(out, `top-${width}-${colorScheme}.png`) });
      for (const id of sections) await page.locator(`#${id}`).screenshot({ path: join(out, `${id}-${width}-${colorScheme}.png`) });
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.equal(wide, 0, 'pixels that the page is wider than the window');
      assert.deepEqual(await axe(page), []);
      await healthy(here);
    });
  }
}
