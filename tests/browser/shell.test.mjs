// The page itself: its policy, a hostile gallery, any sub-path, no network, no WebGPU.
import { strict as assert } from 'node:assert';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { join } from 'node:path';

import { open } from './lib/browser.mjs';
import { greedy } from './lib/native.mjs';
import { gallery, healthy, link, site, Ui, until, visit } from './lib/visit.mjs';

test('its policy allows no script of a page\'s text and no evaluation, and holds', async () => {
  const html = await readFile(join(process.env.QLOOM_WWW, 'index.html'), 'utf8');
  assert.doesNotMatch(html, /unsafe-inline|'unsafe-eval'|<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=/);
  const here = await visit({ fragment: link() });
  await here.page.evaluate(() => {
    const script = document.createElement('script');
    script.textContent = 'globalThis.ran = true';
    document.body.append(script);
    const picture = document.createElement('div');
    picture.innerHTML = '<img src="data:," onerror="globalThis.ran = true">';
    document.body.append(picture);
  });
  await until('the violations', async () => (await here.page.evaluate(() => globalThis.policyViolations.length)) >= 2);
  assert.equal(await here.page.evaluate(() => globalThis.ran), undefined);
  await here.close();
});

test('a gallery with markup in its strings is shown as text', async () => {
  const index = JSON.parse(await readFile(join(process.env.QLOOM_WWW, 'adapters/index.json')));
  const bad = '<img src=x onerror="globalThis.ran=true"><script>globalThis.ran=true</script>';
  Object.assign(index.adapters[0], { name: `N${bad}`.slice(0, 60), task: bad, description: bad, licence: bad });
  const samples = `${JSON.stringify({ prompt: `${bad} prompt`, reference: bad, base: bad, adapted: bad })}\n`;
  const here = await visit({
    fragment: link(),
    fault: ({ path }) => {
      if (path === '/adapters/index.json') return { body: JSON.stringify(index) };
      return path.endsWith('/samples.jsonl') ? { body: samples } : null;
    },
  });
  await here.ui.ready();
  const adapters = here.ui.region('Adapters');
  await until('the gallery', async () => (await adapters.textContent()).includes(bad));
  await here.page.getByRole('list', { name: 'Prompts to try' }).getByRole('button').first().click();
  assert.equal(await here.page.locator('main img, main script, [onerror]').count(), 0);
  assert.equal(await here.page.evaluate(() => globalThis.ran), undefined);
  await healthy(here);
  await here.close();
});

test('after the first visit it opens without network, under any path, and answers', async () => {
  const server = await site({ '/some/where/': process.env.QLOOM_WWW });
  const here = await visit({ server: { ...server, url: `${server.url}some/where/` }, fragment: link(gallery('Sentiment')) });
  const { page, ui } = here;
  await ui.ready('Sentiment');
  const prompt = 'Is the soup warm?';
  const before = await ui.ask(prompt);
  await page.evaluate(async () => { await navigator.serviceWorker.ready; });
  await until('the service worker taking over', async () => page.evaluate(() => navigator.serviceWorker.controller !== null));
  const strays = server.requests.filter(({ path }) => !path.startsWith('/some/where/')).map(({ path }) => path);
  assert.deepEqual(strays.filter((path) => path !== '/favicon.ico'), [], 'requests outside of the path');
  await server.close();
  await page.reload();
  const again = new Ui(page);
  await again.ready('Sentiment');
  assert.deepEqual((await again.ask(prompt)).Sentiment.text, before.Sentiment.text);
  assert.equal(await again.card('Storyteller').count(), 1, 'the gallery is there');
  await here.close();
});

test('without WebGPU the processor computes, and the page says so', async () => {
  const here = await visit({ fragment: link({ ...gallery('Sentiment'), max_new_tokens: 6 }), gpu: false });
  const { ui } = here;
  await ui.ready('Sentiment');
  assert.match(await ui.status.textContent(), /Processor \(no WebGPU\)/);
  assert.match(await ui.region('About').textContent(), /Why not the GPU/);
  const prompt = 'Is the soup warm?';
  const native = await greedy({ adapter: join(process.env.QLOOM_WWW, 'adapters/sentiment') }, prompt, 6);
  const answers = await ui.ask(prompt);
  assert.deepEqual([answers.Base.text, answers.Sentiment.text], [native.base, native.adapted]);
  const train = ui.region('Train');
  await train.getByRole('spinbutton', { name: 'Steps', exact: false }).first().fill('3');
  await train.getByRole('button', { name: 'Train', exact: true }).click();
  await train.getByText('is trained and loaded').waitFor();
  await healthy(here);
  await here.close();
});

test('without scripts the page says what it needs', async () => {
  const here = await visit({ javaScriptEnabled: false });
  assert.match(await here.page.locator('noscript').textContent(), /needs JavaScript/);
  await here.close();
});

test('a section can be linked to', async () => {
  const here = await visit({ fragment: '#results' });
  await here.ui.region('Results').waitFor();
  await until('the section', async () => {
    const { y } = await here.ui.region('Results').boundingBox();
    return y >= 0 && y < 900;
  });
  const second = await open(here.context, `${here.site.url}#nowhere`);
  await new Ui(second.page).region('Compare').waitFor();
  await healthy(second);
  await here.close();
});
