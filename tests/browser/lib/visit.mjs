// A visit to the page: a server, a browser, and the page's parts by the names that a screen reader says.
import { strict as assert } from 'node:assert';
import { fileURLToPath } from 'node:url';

import { launch, open } from './browser.mjs';
import { serve } from './server.mjs';

const pages = fileURLToPath(new URL('../pages', import.meta.url));

/** Serves the site; more folders by prefix. */
export const site = (mounts = {}, port = 0) => serve({ '/': process.env.QLOOM_WWW, '/test/': pages, ...mounts }, port);

/** A fragment as the page's links have it; short greedy answers unless told otherwise. Values may be lists. */
export function link(values = {}) {
  const all = { v: 1, max_new_tokens: 8, ...values };
  const pairs = Object.entries(all).flatMap(([key, value]) => [value].flat().map((one) => `${key}=${encodeURIComponent(one).replaceAll('%2C', ',')}`));
  return `#compare?${pairs.join('&')}`;
}

/** Adapters of the gallery, for `link`. */
export const gallery = (...names) => ({ adapter: names.map((name) => `${name},gallery,${name.toLowerCase()}`) });

/** Longest wait for anything: SwiftShader on a busy machine compiles and computes slowly. */
export const patience = 120_000;

/** Waits until `check` answers something true, and answers it; `what` says what did not happen. */
export async function until(what, check, ms = patience) {
  const end = Date.now() + ms;
  let error;
  do {
    try {
      const found = await check();
      if (found) return found;
      error = undefined;
    } catch (thrown) {
      error = thrown;
    }
    await new Promise((on) => setTimeout(on, 100));
  } while (Date.now() < end);
  throw new Error(`${what} did not happen within ${ms / 1000} s${error ? `: ${error.message}` : ''}`);
}

/** Opens the page. `fault` and `prepare` are as of `serve` and `open`; the rest is for `launch`. */
export async function visit({ fragment = '', mounts, server, prepare, fault, ...options } = {}) {
  const found = server ?? await site(mounts);
  if (fault) found.fault = fault;
  const browser = await launch(options);
  const { page, seen } = await open(browser.context, found.url + fragment, prepare);
  return {
    site: found,
    context: browser.context,
    page,
    seen,
    ui: new Ui(page),
    async close() {
      await browser.close();
      if (!server) await found.close();
    },
  };
}

/** The page's parts. */
export class Ui {
  constructor(page) { this.page = page; }

  region(name) { return this.page.getByRole('region', { name, exact: true }); }
  get status() { return this.page.getByRole('banner').getByRole('status').first(); }
  get base() { return this.region('See what an adapter changes, on your own machine'); }
  get prompt() { return this.region('Compare').getByRole('textbox', { name: 'Prompt', exact: true }); }
  get send() { return this.region('Compare').getByRole('button', { name: 'Compare', exact: true }); }

  /** Waits until the base and adapters of these names are loaded. */
  async ready(...adapters) {
    await until('loading the base', async () => {
      const failed = await this.base.getByRole('alert').first().textContent();
      assert.equal(failed, '', 'the base section says what failed');
      return this.send.isEnabled();
    });
    for (const name of adapters) await this.resident(name).waitFor();
  }

  /** A loaded adapter. */
  resident(name) {
    return this.region('Adapters').getByRole('article').filter({ has: this.page.getByRole('button', { name: `Download ${name}`, exact: true }) });
  }

  /** A card of the gallery. */
  card(name) {
    return this.region('Adapters').getByRole('article').filter({ has: this.page.getByRole('button', { name: `Load ${name}`, exact: true }) });
  }

  /** Unfolds what is under `summary`. */
  async unfold(region, summary) {
    const details = this.region(region).locator('details').filter({ has: this.page.getByText(summary, { exact: true }) }).first();
    if (!await details.evaluate((node) => node.open)) await details.getByText(summary, { exact: true }).click();
    return details;
  }

  /** The column of question `at` (from 1) that belongs to a model. */
  column(at, model) {
    const question = this.page.getByRole('article', { name: `Question ${at}`, exact: true });
    return question.locator('.column').filter({ has: this.page.getByRole('heading', { name: model, exact: true }) });
  }

  /** Sends a prompt and waits for its answers: `{model: {text, foot}}`. */
  async ask(prompt, at = 1) {
    if (prompt !== null) await this.prompt.fill(prompt);
    await this.send.click();
    return this.answers(at);
  }

  /** The answers to question `at`, once they are complete. */
  async answers(at = 1) {
    const question = this.page.getByRole('article', { name: `Question ${at}`, exact: true });
    await question.waitFor();
    await until('answering', async () => {
      const failed = await question.getByRole('alert').textContent();
      assert.equal(failed, '', 'the question says what failed');
      return await question.locator('[aria-busy="true"]').count() === 0 && await this.send.isEnabled();
    });
    const columns = await question.locator('.column').evaluateAll((nodes) => nodes.map((node) => [
      node.querySelector('h3').textContent,
      { text: node.querySelector('.answer').textContent, foot: node.querySelector('.foot').textContent },
    ]));
    return Object.fromEntries(columns);
  }

  /** What is downloaded by `act`: `{name, bytes}`. */
  async download(act) {
    const [download] = await Promise.all([this.page.waitForEvent('download'), act()]);
    const chunks = [];
    for await (const chunk of await download.createReadStream()) chunks.push(chunk);
    return { name: download.suggestedFilename(), bytes: Buffer.concat(chunks) };
  }

  /** Hands files to the picker of a region: paths, or `{name, mimeType, buffer}`. */
  choose(region, files) {
    return this.region(region).getByLabel('Choose files').first().setInputFiles(files);
  }
}

/** Nothing broke on the way: no error, no violation of the page's policy. */
export async function healthy({ page, seen }) {
  assert.deepEqual(seen.errors, [], 'errors of the page');
  assert.deepEqual([...seen.violations, ...await page.evaluate(() => globalThis.policyViolations)], [], 'violations of its policy');
}
