// Drives the web page of a running forestall with a real browser, and says what does not hold.
//
//   node tests/page/page.mjs http://127.0.0.1:9797/
//
// Needs what tests/setup/browser.sh puts into target/browser (or $FORESTALL_BROWSER): a browser and two packages. The
// server must watch a few components, have decided something, and move on while it is looked at.
import assert from 'node:assert/strict';
import http from 'node:http';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

const folder = process.env.FORESTALL_BROWSER ?? fileURLToPath(new URL('../../target/browser', import.meta.url));
const load = createRequire(`${folder}/`);
const { chromium } = load('playwright-core');
const { default: AxeBuilder } = load('@axe-core/playwright');

const base = process.argv[2];
if (!base) throw new Error('usage: node page.mjs URL');
const API = `${base}api/v1/forestall/`;
const VIEWS = ['#/fleet', '#/decisions', '#/plan', '#/rules'];
const BYTES_MAX = 140 * 1024;
const SOON = 10_000;

const read = async (path) => (await (await fetch(API + path)).json()).data;
const encoded = (id) => id.split('/').map(encodeURIComponent).join('/');

const browser = await chromium.launch({
  executablePath: `${folder}/chromium`,
  args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});
const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, colorScheme: 'light', reducedMotion: 'reduce' });
const page = await context.newPage();
page.setDefaultTimeout(SOON);

// What goes wrong at any time: told apart from the errors that a check provokes by `provoked`.
const wrong = [], left = [];
let provoked = false;
page.on('console', (message) => { if (message.type() === 'error' && !provoked) wrong.push(message.text()); });
page.on('pageerror', (error) => wrong.push(String(error.stack)));
context.on('request', (request) => {
  const { origin, protocol } = new URL(request.url());
  if (protocol !== 'data:' && origin !== new URL(base).origin) left.push(request.url());
});

let passed = 0, failed = 0;
async function check(name, run) {
  try {
    await run();
    passed += 1;
    console.log(`ok      ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`not ok  ${name}\n        ${String(error.stack).replaceAll('\n', '\n        ')}`);
  }
}
/** Opens a view afresh and waits until it is there. */
async function open(hash, where = page, from = base) {
  await where.goto('about:blank');
  await where.goto(from + hash);
  await where.waitForSelector('main h1', { state: 'attached' });
}
const texts = (selector) => page.locator(selector).allInnerTexts();
const focused = () => page.evaluate(() => document.activeElement?.dataset.row ?? null);
const keys = () => page.locator('#rows tr').evaluateAll((rows) => rows.map((row) => row.dataset.key));
async function eventually(what, probe) {
  const end = Date.now() + SOON;
  while (!(await probe())) {
    if (Date.now() > end) assert.fail(`not within ${SOON} ms: ${what}`);
    await new Promise((done) => setTimeout(done, 50));
  }
}
/** Answers of the component list, changed on their way to the page while `run` runs. */
async function withComponents(change, run) {
  const pattern = '**/api/v1/forestall/components?*';
  await page.route(pattern, async (route) => {
    const response = await route.fetch();
    const body = await response.json();
    await route.fulfill({ response, json: { ...body, data: change(body.data) } });
  });
  try { await run(); } finally { await page.unroute(pattern); }
}

const first = await read('components?limit=50');
assert.ok(first.components.length >= 5, `the server watches components: ${first.components.length}`);
const risky = first.components.find((row) => row.standing === 'at_risk') ?? first.components[0];

await check('the fleet is ranked and filled', async () => {
  await open('#/fleet');
  const losses = (await texts('#rows td[data-label=loss]')).map(parseFloat);
  assert.equal(losses.length, Math.min(50, first.total));
  const known = losses.filter(Number.isFinite);
  assert.ok(known.length >= 3, `expected losses are shown: ${losses}`);
  assert.deepEqual(known, [...known].sort((a, b) => b - a));
  assert.ok(losses.slice(known.length).every(Number.isNaN), 'what is not known comes last');
  assert.match(await page.locator(`#rows tr[data-key="${risky.id}"]`).innerText(), /\d\s%\s+within/);
  assert.ok((await page.locator(`#rows tr[data-key="${risky.id}"] .spark .k-measured`).getAttribute('d')).length > 40);
});
await check('the lead says how many are likely to fail', async () => {
  // A pass may lie between the two looks.
  await eventually('the lead agrees with the API', async () => {
    const { frame } = await read('components?limit=1');
    const lead = await page.locator('.lead').innerText();
    return lead.includes(frame.standings.at_risk ? `${frame.standings.at_risk} of ` : 'None of ');
  });
});
await check('nothing is told as known of what is unknown', async () => {
  for (const row of first.components.filter((one) => one.probability == null)) {
    const text = await page.locator('#rows tr').filter({ has: page.locator(`[data-row="${row.id}"]`) }).innerText();
    assert.doesNotMatch(text, /\d\s%/, text);
    assert.match(text, /unknown/, text);
  }
});
await check('a component page shows its chart and its sentences', async () => {
  await open(`#/c/${encoded(risky.id)}`);
  for (const part of ['.k-measured', '.k-median', '.k-fan1', '.k-fan2', '.k-threshold', '.k-now']) {
    assert.ok((await page.locator(`#chart ${part}`).first().getAttribute('d')).length > 5, part);
  }
  const detail = await read(`components/${encoded(risky.id)}`);
  const why = await texts('.says li');
  assert.ok(why.length >= detail.why.length && why.length >= 2, why.join(' | '));
  assert.match((await page.locator('.facts').innerText()).toLowerCase(), /probability within [\s\S]*health[\s\S]*impact[\s\S]*expected loss/);
  assert.match(await page.title(), / · forestall$/);
  assert.equal(await page.locator('h1').count(), 1);
});
await check('the chart is read with the keyboard', async () => {
  const chart = page.locator('#chart');
  await chart.focus();
  const said = () => chart.getAttribute('aria-valuetext');
  await page.keyboard.press('End');
  assert.match(await said(), /median .*four paths in five between/);
  await page.keyboard.press('Home');
  const start = await said();
  assert.match(start, /measured/);
  await page.keyboard.press('ArrowRight');
  assert.notEqual(await said(), start);
  assert.equal(await page.evaluate(() => document.activeElement.id), 'chart');
  await page.getByText('Chart as a table').click();
  assert.ok((await page.locator('.card details tbody tr').count()) >= 4);
});
await check('another signal, and what was decided, can be reached from a component', async () => {
  const links = page.locator('td .name[href*="signal="]');
  assert.ok((await links.count()) >= 1);
  await links.last().click();
  assert.match(page.url(), /signal=/);
  assert.equal(await page.locator('.name[aria-current]').count(), 1);
});
await check('decisions are listed, and one is explained', async () => {
  const { decisions } = await read('decisions?limit=100');
  assert.ok(decisions.length >= 1, 'the server has decided something');
  await open('#/decisions');
  assert.ok((await page.locator('#rows tr').count()) >= 1);
  await page.locator('#rows tr a', { hasText: 'Explain' }).first().click();
  await page.waitForSelector('h1:has-text("Decision of")');
  assert.match(await page.locator('#view').innerText(), /comes out the same|no longer kept/);
});
await check('decisions are filtered, and the filter is in the address', async () => {
  await open('#/decisions');
  const code = await page.locator('#rows .chip').first().getAttribute('title');
  const outcomes = await page.locator('[data-param=outcome] option').evaluateAll((all) => all.map((one) => one.value));
  await page.locator(outcomes.includes(code) ? '[data-param=outcome]' : '[data-param=reason]').selectOption(code);
  await eventually('only such decisions are left', async () => (await page.locator('#rows .chip').evaluateAll((all) => [...new Set(all.map((one) => one.title))].join())) === code);
  assert.match(page.url(), new RegExp(`=${code}`));
});
await check('the plan shows what waits and what is held back', async () => {
  await open('#/plan');
  await eventually('the plan agrees with the API', async () => {
    const { waiting, declined } = await read('plan');
    const held = await page.locator('#held li').count();
    return (await page.locator('#waiting li').count()) === waiting.length && held === declined.length;
  });
  const text = await page.locator('#view').innerText();
  assert.ok((await page.locator('#held li').count()) === 0 || text.includes('Released when'), text);
  assert.match(text, /Gates[\s\S]*Mode[\s\S]*Journal/);
});
await check('every rule is there with its record', async () => {
  await open('#/rules');
  const { rules } = await read('rules');
  assert.equal(await page.locator('#rows tr').count(), rules.length);
});

await check('j and k move, Enter opens, Esc comes back to the same row', async () => {
  await open('#/fleet');
  await page.keyboard.press('j');
  await page.keyboard.press('j');
  const second = await focused();
  assert.equal(second, (await keys())[1]);
  await page.keyboard.press('k');
  assert.equal(await focused(), (await keys())[0]);
  await page.keyboard.press('j');
  await page.keyboard.press('Enter');
  await page.waitForSelector('.facts');
  assert.ok(page.url().endsWith(`#/c/${encoded(second)}`), page.url());
  await page.keyboard.press('Escape');
  await eventually('the row has the focus again', async () => (await focused()) === second);
});
await check('/ finds, 1 to 5 change the view, ? helps, and keys can be switched off', async () => {
  await open('#/fleet');
  await page.keyboard.press('/');
  await page.keyboard.type(risky.id.slice(-5));
  await eventually('only what was looked for is shown', async () => (await keys()).every((id) => id.includes(risky.id.slice(-5))) && (await keys()).length >= 1);
  assert.match(page.url(), /find=/);
  assert.equal(await page.evaluate(() => document.activeElement.id), 'find');
  await page.keyboard.press('2');
  assert.match(page.url(), /fleet/, 'a digit in a field is a digit');
  await page.keyboard.press('Escape');
  for (const [key, view] of [['2', 'decisions'], ['3', 'plan'], ['4', 'plan\\?at=waiting'], ['5', 'rules'], ['1', 'fleet']]) {
    await page.keyboard.press(key);
    await eventually(`${key} opens ${view}`, async () => new RegExp(`#/${view}$`).test(page.url()));
  }
  await page.keyboard.press('?');
  assert.ok(await page.locator('#help').isVisible());
  await page.locator('#keys-on').uncheck();
  await page.keyboard.press('Escape');
  await page.keyboard.press('5');
  assert.match(page.url(), /#\/fleet$/);
  await page.keyboard.press('?');
  await page.locator('#keys-on').check();
  await page.keyboard.press('Escape');
});
await check('the way back works, and a row is opened with the mouse', async () => {
  await open('#/fleet?standing=steady');
  await eventually('steady ones only', async () => (await page.locator('#rows .state').evaluateAll((all) => all.length)) >= 1);
  await page.locator('#rows tr').first().locator('td').nth(3).click();
  await page.waitForSelector('.facts');
  await page.goBack();
  await page.waitForSelector('#rows');
  assert.match(page.url(), /standing=steady$/);
  assert.equal(await page.locator('[data-param=standing]').inputValue(), 'steady');
});

await check('it is live, and keeps the focus while it is', async () => {
  await open('#/fleet');
  await page.locator('#rows a').nth(2).focus();
  const row = await focused();
  const at = () => page.locator('#live time').getAttribute('datetime');
  const before = await at();
  await eventually('the time of the data moves on', async () => (await at()) !== before);
  assert.equal(await focused(), row);
});
await check('the order does not change under the reader, who is offered the new one', async () => {
  let turned = false;
  const change = (data) => (turned ? { ...data, components: [...data.components].reverse() } : data);
  await withComponents(change, async () => {
    await open('#/fleet');
    const before = await keys();
    await page.locator('#rows a').first().focus();
    turned = true;
    await page.getByRole('button', { name: 'Order changed, show' }).waitFor();
    assert.deepEqual(await keys(), before);
    await page.getByRole('button', { name: 'Order changed, show' }).click();
    assert.equal((await keys())[0], before.at(-1));
    assert.equal(await page.getByRole('button', { name: 'Order changed, show' }).count(), 0);
  });
});
await check('a tab that is not looked at asks for nothing, and catches up at once', async () => {
  await open('#/fleet');
  const hide = (hidden) => page.evaluate((value) => {
    Object.defineProperty(document, 'hidden', { value, configurable: true });
    document.dispatchEvent(new Event('visibilitychange'));
  }, hidden);
  await hide(true);
  await page.waitForTimeout(300);
  let asked = 0;
  const count = () => { asked += 1; };
  page.on('request', count);
  await page.waitForTimeout(3500);
  assert.equal(asked, 0);
  await hide(false);
  await eventually('it asks again', () => asked > 0);
  page.off('request', count);
});
await check('without an answer the old data stays, greyed, and comes back', async () => {
  await open('#/fleet');
  const rows = (await keys()).length;
  provoked = true;
  await page.route('**/api/**', (route) => route.abort());
  await page.locator('.banner', { hasText: 'No answer from forestall' }).waitFor();
  assert.equal((await keys()).length, rows);
  assert.ok(await page.locator('#view.old').count());
  assert.match(await page.locator('#say').textContent(), /No answer/);
  await page.unroute('**/api/**');
  await page.getByRole('button', { name: 'Try now' }).click();
  await eventually('the banner has gone', async () => (await page.locator('.banner', { hasText: 'No answer' }).count()) === 0);
  provoked = false;
});
await check('empty, loading and missing have words of their own', async () => {
  const nothing = (data) => ({ ...data, components: [], total: 0, frame: { ...data.frame, at: null, series: 0, standings: Object.fromEntries(Object.keys(data.frame.standings).map((name) => [name, 0])) } });
  await withComponents(nothing, async () => {
    await open('#/fleet');
    assert.match(await page.locator('#view').innerText(), /Nothing has arrived yet[\s\S]*remote_write:[\s\S]*api\/v1\/write/);
  });
  await page.route('**/api/**', async (route) => { await new Promise((done) => setTimeout(done, 900)); await route.continue(); });
  await page.goto('about:blank');
  await page.goto(`${base}#/fleet`);
  await page.locator('[role=status] .sk').first().waitFor();
  await page.locator('#rows').waitFor();
  await page.unroute('**/api/**');
  provoked = true;
  await open('#/c/deployment/no/such');
  assert.match(await page.locator('#view').innerText(), /Not here/);
  provoked = false;
});
await check('what labels hold is text, and odd names have a page', async () => {
  await open('#/fleet');
  assert.equal(await page.locator('main :is(img, script, iframe, b b)').count(), 0);
  for (const row of first.components.filter((one) => /[<%& ]/.test(one.id))) {
    await open(`#/c/${encoded(row.id)}`);
    assert.equal(await page.locator('main img').count(), 0);
    assert.ok(await page.locator('.facts').count(), row.id);
  }
});
await check('it works under a prefix', async () => {
  const target = new URL(base);
  const server = http.createServer((request, response) => {
    if (!request.url.startsWith('/some/prefix/')) return response.writeHead(404).end();
    const onward = http.request({ host: target.hostname, port: target.port, path: target.pathname + request.url.slice('/some/prefix/'.length), headers: request.headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    onward.on('error', () => response.destroy());
    request.pipe(onward);
  });
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  const other = await (await browser.newContext()).newPage();
  await open('#/fleet', other, `http://127.0.0.1:${server.address().port}/some/prefix/`);
  assert.ok((await other.locator('#rows tr').count()) >= 5);
  await other.context().close();
  server.closeAllConnections();
  server.close();
});

await check('light and dark differ, by the system and by choice', async () => {
  await open('#/fleet');
  const colour = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await colour();
  await page.emulateMedia({ colorScheme: 'dark' });
  const dark = await colour();
  assert.notEqual(light, dark);
  await page.locator('#theme').click();
  assert.equal(await colour(), light);
  await page.locator('#theme').click();
  assert.equal(await colour(), dark);
  await page.locator('#theme').click();
  await page.emulateMedia({ colorScheme: 'light' });
});
const hashes = [...VIEWS, `#/c/${encoded(risky.id)}`, `#/decisions/${encodeURIComponent((await read('decisions?limit=1')).decisions[0]?.id ?? 'none')}`];
for (const width of [1280, 360, 320]) {
  await check(`${width} px wide nothing scrolls sideways`, async () => {
    await page.setViewportSize({ width, height: 800 });
    for (const hash of hashes) {
      await open(hash);
      const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.equal(over, 0, `${hash} is ${over} px too wide`);
    }
  });
}
for (const [scheme, width] of [['light', 1280], ['dark', 1280], ['light', 360], ['dark', 360]]) {
  await check(`axe finds nothing serious, ${scheme}, ${width} px`, async () => {
    await page.setViewportSize({ width, height: 800 });
    await page.emulateMedia({ colorScheme: scheme });
    for (const hash of hashes) {
      await open(hash);
      const { violations } = await new AxeBuilder({ page }).withTags(['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']).analyze();
      const serious = violations.filter((one) => ['serious', 'critical'].includes(one.impact));
      assert.deepEqual(serious.map((one) => `${hash} ${one.id}: ${one.nodes.slice(0, 3).map((node) => node.html).join(' ')}`), []);
    }
  });
}

await check('the page is small, and its headers keep everything else out', async () => {
  let bytes = 0;
  for (const file of ['', 'page.js', 'page.css']) {
    const response = await fetch(base + file);
    bytes += (await response.arrayBuffer()).byteLength;
    assert.match(response.headers.get('content-security-policy'), /default-src 'none'/);
  }
  assert.ok(bytes <= BYTES_MAX, `${bytes} bytes`);
});
await check('no error was logged, and no request left the origin', async () => {
  assert.deepEqual(wrong, []);
  assert.deepEqual(left, []);
});

await browser.close();
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
