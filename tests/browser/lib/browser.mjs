// Chromium with WebGPU on SwiftShader, a fresh profile each time, and what a test wants to know of a page.
import { createRequire } from 'node:module';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const require = createRequire(join(process.env.PACKAGES, 'package.json'));
const { chromium } = require('playwright-core');

const quiet = ['--no-sandbox', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync'];
const webgpu = ['--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader'];

/** A browser with its own empty profile. `gpu: false` leaves WebGPU out; other options are playwright's. */
export async function launch({ gpu = true, args = [], ...options } = {}) {
  const profile = await mkdtemp(join(tmpdir(), 'qloom-browser-'));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM,
    headless: true,
    args: [...quiet, ...(gpu ? webgpu : ['--disable-gpu']), ...args],
    viewport: { width: 1280, height: 900 },
    acceptDownloads: true,
    reducedMotion: 'reduce',
    ...options,
  });
  context.setDefaultTimeout(120_000);
  return {
    context,
    // Closing can hang in headless mode; a test must not.
    async close() {
      await Promise.race([context.close(), new Promise((on) => setTimeout(on, 5_000))]).catch(() => {});
      await rm(profile, { recursive: true, force: true, maxRetries: 3 }).catch(() => {});
    },
  };
}

/** Opens `url` and keeps what goes wrong there: errors and policy violations. `prepare` sees the page before it loads. */
export async function open(context, url, prepare = async () => {}) {
  const page = await context.newPage();
  const seen = { errors: [], violations: [], console: [] };
  page.on('pageerror', (error) => seen.errors.push(String(error.stack ?? error)));
  page.on('crash', () => seen.errors.push('the page crashed'));
  page.on('console', (message) => {
    const line = `${message.type()}: ${message.text()}`;
    seen.console.push(line);
    if (/content.security.policy/i.test(line)) seen.violations.push(line);
  });
  await page.addInitScript(() => {
    globalThis.policyViolations = [];
    addEventListener('securitypolicyviolation', (e) => {
      globalThis.policyViolations.push(`${e.violatedDirective}: ${e.blockedURI}`);
    });
  });
  await prepare(page);
  await page.goto(url);
  return { page, seen };
}

/** axe-core's violations on the page as it is, as short lines; all of it, or what `selector` holds. */
export async function axe(page, selector) {
  // Evaluated through the debugger, which the page's policy does not bind.
  await page.evaluate(await readFile(require.resolve('axe-core/axe.min.js'), 'utf8'));
  const violations = await page.evaluate(async (where) => {
    const found = await globalThis.axe.run(where ?? document, { resultTypes: ['violations'] });
    return found.violations;
  }, selector);
  return violations.map((v) => `${v.id}: ${v.help}: ${v.nodes.map((n) => n.target.join(' ')).join(', ')}`);
}
