'use strict';
// The page of forestall: reads api/v1/forestall/ and shows it; changes nothing there. Every text goes in as a text node.
// Order: building blocks, words, parts of views, the chart, the views, and what keeps them alive.

const API = 'api/v1/forestall/';
const SVG = 'http://www.w3.org/2000/svg';
const MINUTE = 60e3, HOUR = 3600e3, DAY = 864e5;
const NBSP = '\u00a0';
const $ = (selector) => document.querySelector(selector);

// ---- Building blocks -------------------------------------------------------------------------------------------

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value != null && value !== false) element.setAttribute(name, value === true ? '' : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child != null && child !== false) element.append(child);
  }
  return element;
}
/** An HTML element; strings among the children become text nodes. */
const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
/** An SVG element. */
const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

/** Makes `now` look like `next` in place, so that focus, selection and open details survive. Rows are told apart by data-key. */
function morph(now, next) {
  if (now.nodeType !== next.nodeType || now.nodeName !== next.nodeName || keyOf(now) !== keyOf(next)) {
    now.replaceWith(next);
    return;
  }
  if (now.nodeType === Node.TEXT_NODE) {
    if (now.data !== next.data) now.data = next.data;
    return;
  }
  const tint = now.dataset?.tint !== undefined && now.textContent !== next.textContent;
  for (const { name } of [...now.attributes]) {
    // Whether details are open is the reader's business.
    if (!next.hasAttribute(name) && name !== 'open') now.removeAttribute(name);
  }
  for (const { name, value } of next.attributes) {
    if (now.getAttribute(name) !== value) now.setAttribute(name, value);
  }
  if (now.matches('input, select') && now !== document.activeElement) now.value = next.value;
  if (!now.matches('input')) morphChildren(now, next);
  if (tint) now.classList.add('changed');
}
const keyOf = (node) => node.dataset?.key;

function morphChildren(now, next) {
  const keyed = new Map([...now.childNodes].filter(keyOf).map((child) => [keyOf(child), child]));
  let place = now.firstChild;
  for (const wanted of [...next.childNodes]) {
    const key = keyOf(wanted);
    const found = key ? keyed.get(key) : place && !keyOf(place) ? place : null;
    if (!found) {
      now.insertBefore(wanted, place);
      continue;
    }
    if (found === place) place = place.nextSibling;
    else now.insertBefore(found, place);
    morph(found, wanted);
  }
  while (place) {
    const gone = place;
    place = place.nextSibling;
    gone.remove();
  }
}

// What the reader chose, kept in this browser where it allows that.
const kept = {
  get(name) { try { return localStorage.getItem('forestall.' + name); } catch { return null; } },
  set(name, value) { try { localStorage.setItem('forestall.' + name, value); } catch { /* it then lasts as long as the tab */ } },
};

// ---- Words -----------------------------------------------------------------------------------------------------

/** `24 min`, `1 h 35 min`, `2.3 d`. */
function span(millis) {
  const minutes = Math.floor(Math.abs(millis) / MINUTE);
  if (minutes < 1) return `${Math.floor(Math.abs(millis) / 1000)}${NBSP}s`;
  if (minutes < 60) return `${minutes}${NBSP}min`;
  const hours = Math.floor(minutes / 60);
  if (minutes < 2880) return minutes % 60 ? `${hours}${NBSP}h ${minutes % 60}${NBSP}min` : `${hours}${NBSP}h`;
  return `${(Math.abs(millis) / DAY).toFixed(1)}${NBSP}d`;
}
const seconds = (value) => span(value * 1000);

/** Whole per cent; 0 and 100 only where exact. */
function percent(share) {
  const p = share * 100;
  if (p > 0 && p < 1) return `under 1${NBSP}%`;
  if (p > 99 && p < 100) return `over 99${NBSP}%`;
  return `${Math.round(p)}${NBSP}%`;
}

/** A value with about four significant digits; large ones with k, M, G, T. */
function figure(value) {
  const size = Math.abs(value);
  for (const [limit, unit] of [[1e12, 'T'], [1e9, 'G'], [1e6, 'M'], [1e4, 'k']]) {
    if (size >= limit) return `${(value / limit).toPrecision(3)}${NBSP}${unit}`;
  }
  if (size !== 0 && size < 1e-3) return value.toExponential(2);
  return value.toFixed(size >= 1000 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3);
}
const two = (value) => value.toFixed(2);
const words = (code) => (code ?? '').replaceAll('_', ' ');
/** A sentence of the planner without what is for machines: ids, and codes of actions. */
const forPeople = (text) => text.replace(/\b[0-9a-f]{12,}\b/g, 'an earlier action').replace(/\b(scale|shift)_(out|up|load)\b/g, '$1 $2');
const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);
const plural = (count, one, many) => `${count} ${count === 1 ? one : many}`;

const zone = () => (kept.get('zone') === 'utc' ? 'UTC' : undefined);
const formats = new Map();
function format(time, options) {
  const key = JSON.stringify([zone(), options]);
  if (!formats.has(key)) formats.set(key, new Intl.DateTimeFormat('en-GB', { ...options, timeZone: zone() }));
  return formats.get(key).format(time);
}
const clock = (time) => format(time, { hour: '2-digit', minute: '2-digit' });
const day = (time) => format(time, { day: 'numeric', month: 'short' });
const full = (time) => format(time, { dateStyle: 'medium', timeStyle: 'long' });
/** `03:07`, with the day where it is not the day of the data. */
const when = (time) => (frame?.at && day(time) !== day(frame.at) ? `${day(time)}, ${clock(time)}` : clock(time));
const time = (at) => h('time', { datetime: new Date(at).toISOString(), title: full(at), class: 'nowrap' }, when(at));

const STATES = {
  failing: ['Failing now', 'risk', () => s('rect', { class: 'solid', x: 1, y: 1, width: 10, height: 10 })],
  at_risk: ['At risk', 'risk', () => s('path', { class: 'solid', d: 'M6 1L11.4 11H.6z' })],
  acting: ['Acting', 'act', () => s('path', { class: 'solid', d: 'M6 .8L11.2 6 6 11.2.8 6z' })],
  watch: ['Watch', 'watch', () => [s('circle', { cx: 6, cy: 6, r: 4.8 }), s('path', { class: 'solid', d: 'M6 1.2a4.8 4.8 0 0 0 0 9.6z' })]],
  steady: ['Steady', 'mute', () => s('circle', { cx: 6, cy: 6, r: 4.8 })],
  learning: ['Learning', 'mute', () => s('circle', { cx: 6, cy: 6, r: 4.8, 'stroke-dasharray': '2 1.8' })],
  unknown: ['Unknown', 'mute', () => s('path', { d: 'M2 2l8 8M10 2l-8 8' })],
};
const REASONS = {
  below_entry: 'below entry level', not_worth_it: 'not worth its cost', insufficient_capacity: 'no room',
  priority: 'nothing lower to free', budget: 'budget spent', blast_radius: 'too much at once', cooldown: 'cooling down',
  latched: 'no effect twice', window: 'outside window', pdb: 'disruption budget', stale: 'data stale', learning: 'learning',
  start_hold: 'just started', too_late: 'too late', paused: 'paused', breaker: 'breaker open', not_owner: 'not ours',
  not_leader: 'not leader', journal: 'journal not written', observe: 'observe mode', approval: 'waits for you',
  holdout: 'held out, to learn',
};
const QUIET_REASONS = ['below_entry', 'not_worth_it', 'observe', 'learning', 'start_hold', 'cooldown', 'holdout'];
const OUTCOMES = {
  confirmed: ['confirmed', 'good', 'M2 6l3 3 5-6'], applied: ['applied, verifying', 'act', 'M1.5 6h8M7 3l3 3-3 3'],
  unchanged: ['no effect', 'watch', 'M2 6h8'], dry_run: ['observed only', '', 'M2 4h8M2 8h8'],
  failed: ['failed', 'risk', 'M2.5 2.5l7 7M9.5 2.5l-7 7'], expired: ['expired', '', 'M6 1.3a4.7 4.7 0 1 0 .01 0M6 3.4V6l2 1.4'],
  reverted: ['given back', 'future', 'M9.5 9V5.5H2.5M5 3L2.5 5.5 5 8'], under_way: ['under way', 'act', 'M1.5 6h8M7 3l3 3-3 3'],
  in_force: ['in force', 'act', 'M2 6l3 3 5-6'], acting: ['acting now', 'act', 'M1.5 6h8M7 3l3 3-3 3'],
  waiting: ['waits for you', 'future', 'M6 1.3a4.7 4.7 0 1 0 .01 0M6 3.4V6l2 1.4'],
  unknown: ['outcome unknown', 'risk', 'M2 6h8'], cancelled: ['called off', '', 'M2.5 2.5l7 7M9.5 2.5l-7 7'],
};
const MODES = {
  observe: 'observe: decisions are written down, nothing is touched',
  approve: 'approve: a person releases each action',
  act: 'act: actions are carried out',
};

// ---- Parts of views ----------------------------------------------------------------------------------------------

const glyph = (...shapes) => s('svg', { class: 'glyph', width: 12, height: 12, viewBox: '0 0 12 12', 'aria-hidden': 'true' }, shapes);

/** How a component stands, in the page's words: one that is being helped is acting. */
function stateOf(row) {
  const helped = ['acting', 'in_force'].includes(row.decision?.outcome);
  return helped && row.standing !== 'failing' && row.standing !== 'unknown' ? 'acting' : row.standing;
}
function state(row) {
  const [text, tone, shape] = STATES[stateOf(row)] ?? STATES.unknown;
  return h('span', { class: `state ${tone}`, 'data-tint': '' }, glyph(shape()), h('span', null, text));
}
function outcome(code) {
  const [text, tone, path] = OUTCOMES[code] ?? [words(code), '', 'M2 6h8'];
  return h('span', { class: `chip ${tone}`, title: code }, glyph(s('path', { d: path })), text);
}
function reason(code) {
  const tone = code === 'approval' ? 'future' : QUIET_REASONS.includes(code) ? '' : 'watch';
  return h('span', { class: `chip ${tone}`, title: code }, REASONS[code] ?? words(code));
}

const encoded = (id) => id.split('/').map(encodeURIComponent).join('/');
const link = (id) => `#/c/${encoded(id)}`;
// A slash inside a label's value is written %2F in ids; people see the slash.
const plain = (part) => part.replaceAll('%2F', '/').replaceAll('%25', '%');
/** `shop/checkout` of `deployment/shop/checkout`. */
const shortName = (id) => id.split('/').slice(1).map(plain).join('/') || id;
function nameParts(id) {
  const [kind, ...rest] = id.split('/');
  const parts = rest.flatMap((part, place) => [place ? ['/', h('wbr')] : [], plain(part)]);
  return [h('i', null, `${kind}/`, h('wbr')), parts];
}
const name = (id, attributes) => h('a', { class: 'name', href: link(id), ...attributes }, nameParts(id));
const decisionLink = (id, text, hidden) => h('a', { href: `#/decisions/${encodeURIComponent(id)}` }, text, h('span', { class: 'vh' }, hidden));

/** A table with its roles said outright: as blocks on a narrow screen it would lose them. */
function table(attributes, caption, columns, rows) {
  const head = columns.map((column) => h('th', { scope: 'col', role: 'columnheader', ...column.attributes }, column.head));
  return h('table', { role: 'table', ...attributes },
    h('caption', { class: 'vh' }, caption),
    h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, head)),
    h('tbody', { role: 'rowgroup', id: 'rows' }, rows));
}
const column = (head, classes, attributes) => ({ head, attributes: { class: classes, ...attributes } });
const cell = (classes, content, label) => h('td', { role: 'cell', class: classes, 'data-label': label }, content);
const blank = (title, ...content) => h('div', { class: 'blank' }, h('h1', null, title), content);
const list = (items) => h('ul', { class: 'says' }, items.map((item) => h('li', null, item)));

function meter(share) {
  return s('svg', { class: 'meter', width: 44, height: 4, 'aria-hidden': 'true' },
    s('rect', { class: 'all', width: 44, height: 4 }), s('rect', { class: 'part', width: (44 * Math.min(1, Math.max(0, share))).toFixed(1), height: 4 }));
}

/** A line through points `[x, y]`, broken where `gap` says that between two of them nothing is known. */
function line(points, X, Y, gap) {
  let path = '';
  points.forEach(([x, y], place) => {
    const broken = place === 0 || (gap && x - points[place - 1][0] > gap);
    path += `${broken ? 'M' : 'L'}${X(x).toFixed(1)} ${Y(y).toFixed(1)}`;
  });
  return path;
}
function area(low, high, X, Y) {
  if (low.length < 2 || low.length !== high.length) return '';
  return `${line(low, X, Y)}L${line([...high].reverse(), X, Y).slice(1)}Z`;
}
/** Longer than this between two points is a gap: some times the usual distance. */
function gapOf(points) {
  const steps = points.slice(1).map(([x], place) => x - points[place][0]).sort((a, b) => a - b);
  return steps.length ? steps[Math.floor(steps.length / 2)] * 3.5 : Infinity;
}

/** Two horizons back and one ahead, no numbers; what it shows is said in its label. */
function spark(row) {
  const W = 240, H = 32;
  const { past, ahead, threshold, at } = row.spark ?? { past: [] };
  if (!past.length && !ahead) return h('span', { class: 'mute small' }, 'no data');
  const horizon = row.horizon_seconds * 1000;
  const finite = (values) => (values ?? []).filter(Number.isFinite);
  const points = (values) => finite(values).map((value, place) => [ahead.start + place * ahead.step_seconds * 1000, value]);
  const seen = past.map(([, value]) => value);
  const wanted = [...seen, ...finite(ahead?.low), ...(threshold == null ? [] : [threshold, threshold * 0.55, threshold * 1.12])];
  const low = Math.min(...wanted);
  const high = Math.max(...wanted, low + 1e-9);
  const X = (t) => ((t - at) / horizon + 2) / 3 * W;
  const Y = (value) => Math.max(0, Math.min(H, H - 3 - (value - low) / (high - low) * (H - 6)));
  const last = past.length ? [past.at(-1)] : [];
  const marks = [];
  if (threshold != null) marks.push(s('path', { class: 'k-threshold', d: `M0 ${Y(threshold).toFixed(1)}H${W}` }));
  if (ahead && row.probability != null) {
    marks.push(s('path', { class: 'k-fan1', d: area([...last, ...points(ahead.low)], [...last, ...points(ahead.high)], X, Y) }));
    marks.push(s('path', { class: 'k-median', d: line([...last, ...points(ahead.values)], X, Y) }));
  }
  marks.push(s('path', { class: 'k-now', d: `M${W * 2 / 3} -6V${H + 6}` }));
  marks.push(s('path', { class: 'k-measured', d: line(past, X, Y, gapOf(past)) }));
  const { q10, q50 } = row.eta_seconds ?? {};
  if (q10 != null && threshold != null && row.standing !== 'failing') {
    const from = X(at + q10 * 1000), to = q50 == null ? W : X(at + q50 * 1000);
    marks.push(s('path', { class: 'k-whisker', d: `M${from.toFixed(1)} ${Y(threshold).toFixed(1)}H${to.toFixed(1)}` }));
  }
  const { signal, current } = row.worst ?? {};
  const says = [signal, current == null ? 'no value' : `now ${figure(current)}`, threshold == null ? '' : `threshold ${figure(threshold)}`,
    q50 != null ? `median path crosses in ${seconds(q50)}` : row.probability == null ? 'no forecast' : 'median path does not cross'];
  return s('svg', { class: 'spark', viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': says.filter(Boolean).join(', ') }, marks);
}

/** The chip of what forestall does about a component. */
function lastDecision(decision) {
  if (!decision) return h('span', { class: 'mute' }, 'nothing wanted');
  const chip = decision.outcome === 'declined' ? reason(decision.reason) : outcome(decision.outcome);
  return [decision.kind ? `${sentence(words(decision.kind))} ` : '', chip];
}
const breachIn = (row) => {
  if (row.standing === 'failing') return h('b', { class: 'risk' }, 'now');
  if (row.eta_seconds?.q50 != null) return seconds(row.eta_seconds.q50);
  if (row.eta_seconds?.q10 != null) return h('span', { class: 'mute' }, `from ${seconds(row.eta_seconds.q10)}`);
  return h('span', { class: 'mute' }, `beyond ${seconds(row.horizon_seconds)}`);
};

// ---- The chart -----------------------------------------------------------------------------------------------------

const cursor = { at: null };
let scale = null;

/** Round steps: 1, 2 or 5 times a power of ten. */
function valueTicks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough);
  const ticks = [];
  // All with the same digits, as many as tell one from the next.
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  for (let n = Math.ceil(low / step); n * step <= high; n++) {
    const value = n * step;
    ticks.push([value, Math.abs(high) >= 1e4 || digits > 4 ? figure(value) : value.toFixed(digits)]);
  }
  return ticks;
}
/** Wall-clock multiples in the reader's zone. */
function timeTicks(from, to, count) {
  const steps = [1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 10080, 40320].map((minutes) => minutes * MINUTE);
  const step = steps.find((candidate) => (to - from) / candidate <= count) ?? steps.at(-1);
  const offset = zone() ? 0 : -new Date(to).getTimezoneOffset() * MINUTE;
  const ticks = [];
  for (let at = Math.ceil((from + offset) / step) * step - offset; at <= to; at += step) ticks.push(at);
  return ticks.map((at) => [at, step >= DAY || clock(at) === '00:00' ? day(at) : clock(at)]);
}

/** A signal's fan as points by level, from the last measured point on. */
function fanOf(signal) {
  const path = signal.path;
  if (!path || signal.probability == null) return null;
  const last = signal.past.length ? [signal.past.at(-1)] : [];
  const ahead = last.length ? last[0][0] : -Infinity;
  const points = (values) => values.map((value, step) => [path.start + step * path.step_seconds * 1000, value])
    .filter(([at, value]) => Number.isFinite(value) && at > ahead);
  return path.levels.map((level, place) => [...last, ...points(path.values[place])]);
}

/** The range of values: holds the threshold and everything measured, and is never so narrow that noise looks like drama. */
function valueRange(signal, fan) {
  const limits = [signal.threshold, signal.warn].filter((value) => value != null);
  const solid = [...signal.past.map(([, value]) => value), ...limits];
  let low = Math.min(...solid), high = Math.max(...solid);
  if (!solid.length) [low, high] = [0, 1];
  const reach = Math.max(high - low, Math.abs(signal.threshold ?? 0) * 0.5, 1e-9) * 1.5;
  const foreseen = (fan ?? []).flat().map(([, value]) => value);
  const wasAbove = low >= 0;
  low = Math.max(Math.min(low, ...foreseen), low - reach);
  high = Math.min(Math.max(high, ...foreseen), high + reach);
  const missing = Math.abs(signal.threshold ?? 0) * 0.5 - (high - low);
  if (missing > 0) [low, high] = [low - missing / 2, high + missing / 2];
  if (low === high) [low, high] = [low - 1, high + 1];
  const pad = (high - low) * 0.06;
  return [wasAbove && low - pad < 0 ? Math.min(0, low) : low - pad, high + pad];
}

function chart(detail, signal, width) {
  const wide = width >= 520;
  const height = wide ? 300 : 240;
  const m = { left: wide ? 56 : 48, right: wide ? 92 : 12, top: 26, bottom: 24 };
  const at = detail.at, horizon = detail.horizon_seconds * 1000;
  const from = at - 2 * horizon, to = at + horizon;
  const fan = fanOf(signal);
  const [low, high] = valueRange(signal, fan);
  const right = width - m.right, foot = height - m.bottom;
  const X = (t) => m.left + (t - from) / (to - from) * (right - m.left);
  const Y = (value) => Math.max(m.top, Math.min(foot, foot - (value - low) / (high - low) * (foot - m.top)));
  scale = { detail, signal, fan, from, to, width, left: m.left, right };
  const text = (x, y, content, attributes) => s('text', { x: x.toFixed(1), y: y.toFixed(1), ...attributes }, content);
  const marks = [];

  for (const [tick, label] of valueTicks(low, high, 5)) {
    marks.push(s('path', { class: 'k-grid', d: `M${m.left} ${Y(tick).toFixed(1)}H${right}` }));
    marks.push(text(m.left - 8, Y(tick) + 4, label, { 'text-anchor': 'end' }));
  }
  for (const [tick, label] of timeTicks(from, to, width / 90)) {
    marks.push(s('path', { class: 'k-axis', d: `M${X(tick).toFixed(1)} ${foot}v4` }));
    marks.push(text(X(tick), foot + 18, label, { 'text-anchor': 'middle' }));
  }
  if (signal.knowledge.state !== 'known') {
    const end = signal.past.length ? signal.past.at(-1)[0] : from;
    marks.push(s('rect', { class: 'k-stale', x: X(Math.max(end, from)).toFixed(1), y: m.top, width: Math.max(0, X(at) - X(Math.max(end, from))).toFixed(1), height: foot - m.top }));
  }
  if (fan) {
    marks.push(s('path', { class: 'k-fan1', d: area(fan[0], fan.at(-1), X, Y) }));
    if (fan.length === 5) marks.push(s('path', { class: 'k-fan2', d: area(fan[1], fan[3], X, Y) }));
  }
  marks.push(...limitMarks(signal, m.left, right, Y, text));
  if (fan) marks.push(s('path', { class: 'k-median', d: line(fan[Math.floor(fan.length / 2)], X, Y) }));
  marks.push(s('path', { class: 'k-measured', d: line(signal.past, X, Y, gapOf(signal.past)) }));
  marks.push(s('path', { class: 'k-now', d: `M${X(at).toFixed(1)} ${m.top - 6}V${foot}` }), text(X(at), m.top - 12, `now ${clock(at)}`, { class: 't-ink', 'text-anchor': 'middle' }));
  marks.push(...breachMarks(signal, at, to, right, X, Y, text));
  if (fan && wide) marks.push(...fanLabels(fan, right, Y, text));
  marks.push(s('path', { class: 'k-axis', d: `M${m.left} ${foot}H${right}` }));
  const read = readAt(cursor.at ?? at);
  if (cursor.at != null) {
    marks.push(s('path', { class: 'k-cursor', d: `M${X(read.at).toFixed(1)} ${m.top}V${foot}` }));
    if (read.value != null) marks.push(s('circle', { class: 'k-cursor-dot', r: 3.5, cx: X(read.at).toFixed(1), cy: Y(read.value).toFixed(1) }));
  }
  return [
    h('div', { class: 'chart' },
      s('svg', {
        id: 'chart', viewBox: `0 0 ${width} ${height}`, role: 'slider', tabindex: 0, 'aria-label': `${signal.signal}, values over time`,
        'aria-valuemin': -120, 'aria-valuemax': 60, 'aria-valuenow': Math.round((read.at - at) / horizon * 60), 'aria-valuetext': read.says,
      }, marks),
      lane(detail, { X, from, to, at, left: m.left, right, width })),
    h('p', { class: 'read small mute' }, cursor.at == null ? 'Point at the chart, or focus it and use the arrow keys, to read values.' : read.says),
    chartTable(fan, signal, at, horizon),
  ];
}

function limitMarks(signal, left, right, Y, text) {
  const marks = [];
  if (signal.warn != null) {
    marks.push(s('path', { class: 'k-warn', d: `M${left} ${Y(signal.warn).toFixed(1)}H${right}` }));
    if (signal.threshold == null || Math.abs(Y(signal.warn) - Y(signal.threshold)) > 16) {
      marks.push(text(left + 4, Y(signal.warn) - 5, `warn ${figure(signal.warn)}`, { class: 't-watch' }));
    }
  }
  if (signal.threshold != null) {
    marks.push(s('path', { class: 'k-threshold', d: `M${left} ${Y(signal.threshold).toFixed(1)}H${right}` }));
    marks.push(text(left + 4, Y(signal.threshold) - 5, `threshold ${figure(signal.threshold)}`, { class: 't-risk' }));
  }
  return marks;
}

/** Where one in ten and half of the futures are beyond the threshold. */
function breachMarks(signal, at, to, right, X, Y, text) {
  const { q10, q50 } = signal.eta_seconds;
  if (q10 == null || signal.threshold == null || signal.breached) return [];
  const first = at + q10 * 1000, half = q50 == null ? null : at + q50 * 1000;
  const y = Y(signal.threshold), end = half == null ? right : X(Math.min(half, to));
  const marks = [s('path', { class: half == null ? 'k-whisker' : 'k-breach', d: `M${X(first).toFixed(1)} ${y.toFixed(1)}H${end.toFixed(1)}` })];
  marks.push(s('path', { class: 'k-whisker', d: `M${X(first).toFixed(1)} ${(y - 6).toFixed(1)}v12` }));
  if (half != null) marks.push(s('path', { class: 'k-whisker', d: `M${end.toFixed(1)} ${(y - 9).toFixed(1)}v18` }));
  const says = half == null ? `breach from ${clock(first)}` : `breach ${clock(first)} to ${clock(half)}`;
  // To the left of the mark's end where there is room, which there is: now lies at two thirds.
  marks.push(text(Math.min(right, Math.max(end, X(first) + 60)), y - 13, says, { class: 't-risk', 'text-anchor': 'end' }));
  return marks;
}

function fanLabels(fan, right, Y, text) {
  const ends = [[fan.at(-1), '1 in 10 above'], [fan[Math.floor(fan.length / 2)], 'median'], [fan[0], '1 in 10 below']];
  if (ends.some(([points]) => !points.length)) return [];
  const middle = Y(ends[1][0].at(-1)[1]) + 4;
  const above = Math.min(Y(ends[0][0].at(-1)[1]) + 4, middle - 14), below = Math.max(Y(ends[2][0].at(-1)[1]) + 4, middle + 14);
  return [above, middle, below].map((y, place) => text(right + 6, y, ends[place][1], { class: 't-future' }));
}

/** Decisions under the plot: what was done as a diamond with its time in force, what was not as a ring. */
function lane(detail, { X, from, to, at, left, right, width }) {
  const inside = (time) => from <= time && time <= to;
  const done = detail.actions.filter((action) => inside(action.decided_at) || (action.expires_at && !action.given_back && inside(action.expires_at) && action.decided_at < from));
  const spans = done.filter((action) => ['confirmed', 'applied', 'unknown'].includes(action.outcome) && action.expires_at).map((action) => {
    const end = action.given_back && action.settled_at ? Math.min(action.expires_at, at) : action.expires_at;
    const x = X(Math.max(from, action.decided_at));
    return s('rect', { class: 'span', x: x.toFixed(1), y: 7, width: Math.max(1, X(Math.min(to, end)) - x).toFixed(1), height: 14 });
  });
  const marks = done.filter((action) => inside(action.decided_at)).map((action) => ({
    at: action.decided_at, kind: 'did', href: null,
    says: `${when(action.decided_at)}, ${action.sentence}, ${(OUTCOMES[action.outcome ?? 'under_way'] ?? [words(action.outcome)])[0]}`,
  }));
  for (const row of detail.decided) {
    if (!inside(row.at)) continue;
    const known = marks.find((mark) => mark.kind === 'did' && mark.at === row.at);
    if (known) known.href = row.href;
    else marks.push({ at: row.at, kind: row.reason === 'approval' ? 'waits' : 'declined', href: row.href, says: `${when(row.at)}, not done, ${REASONS[row.reason] ?? words(row.reason)}` });
  }
  marks.sort((a, b) => a.at - b.at);
  // Marks closer than a fingertip become one.
  const groups = [];
  for (const mark of marks) {
    const last = groups.at(-1);
    if (last && X(mark.at) - X(last.at) < 25) last.marks.push(mark);
    else groups.push({ at: mark.at, marks: [mark] });
  }
  const shapes = groups.map((group) => {
    const x = Math.min(Math.max(X(group.at), 12), width - 12);
    const best = group.marks.find((mark) => mark.kind === 'did') ?? group.marks.find((mark) => mark.kind === 'waits') ?? group.marks[0];
    const shape = best.kind === 'did' ? s('path', { class: 'did', d: `M${x.toFixed(1)} 6l8 8-8 8-8-8z` }) : s('circle', { class: best.kind, cx: x.toFixed(1), cy: 14, r: 5 });
    const says = group.marks.length > 1 ? `${plural(group.marks.length, 'decision', 'decisions')}: ${group.marks.map((mark) => mark.says).join('; ')}` : best.says;
    const href = best.href ?? group.marks.find((mark) => mark.href)?.href ?? `#/decisions?component=${encodeURIComponent(detail.id)}`;
    return s('a', { href, 'aria-label': says, 'data-key': `mark${group.at}` }, s('title', null, says), s('rect', { class: 'hit', x: (x - 12).toFixed(1), y: 2, width: 24, height: 24 }), shape);
  });
  return s('svg', { class: 'lane', viewBox: `0 0 ${width} 28`, role: 'group', 'aria-label': 'Decisions' },
    s('path', { class: 'k-grid', d: `M${left} 14H${right}` }), spans, shapes.length ? shapes : s('text', { x: left + 4, y: 11 }, 'no decisions in this time'));
}

/** What is measured or foreseen at a time, as value and sentence. */
function readAt(at) {
  const { detail, signal, fan } = scale;
  const closest = (points) => points.reduce((best, point) => (best && Math.abs(best[0] - at) <= Math.abs(point[0] - at) ? best : point), null);
  if (at > detail.at && fan && fan[0].length) {
    const steps = fan.map(closest);
    const middle = steps[Math.floor(steps.length / 2)];
    return { at: middle[0], value: middle[1], says: `${when(middle[0])}, median ${figure(middle[1])}, four paths in five between ${figure(steps[0][1])} and ${figure(steps.at(-1)[1])}` };
  }
  const point = closest(signal.past);
  if (at > detail.at || !point || Math.abs(point[0] - at) > gapOf(signal.past)) return { at, value: null, says: `${when(at)}, nothing ${at > detail.at ? 'foreseen' : 'measured'}` };
  return { at: point[0], value: point[1], says: `${when(point[0])}, measured ${figure(point[1])}` };
}

function chartTable(fan, signal, at, horizon) {
  const rows = [];
  for (const share of [-2, -1, -0.5, 0]) {
    const read = readAt(at + share * horizon);
    if (read.value != null) rows.push([read.at, '', figure(read.value), '', 'measured']);
  }
  for (const share of fan ? [0.25, 0.5, 0.75, 1] : []) {
    const place = Math.round(share * (fan[0].length - 1));
    const [low, middle, high] = [fan[0][place], fan[Math.floor(fan.length / 2)][place], fan.at(-1)[place]];
    if (middle) rows.push([middle[0], figure(low[1]), figure(middle[1]), figure(high[1]), 'foreseen']);
  }
  const columns = [column('Time'), column('What'), column('1 in 10 below', 'num'), column('Value or median', 'num'), column('1 in 10 above', 'num')];
  return h('details', { class: 'small' }, h('summary', null, 'Chart as a table'),
    h('table', null, h('caption', { class: 'vh' }, `${signal.signal}, measured and foreseen`),
      h('thead', null, h('tr', null, columns.map((c) => h('th', { scope: 'col', ...c.attributes }, c.head)))),
      h('tbody', null, rows.map(([t, low, value, high, what]) => h('tr', null, h('td', null, time(t)), h('td', null, what), h('td', { class: 'num' }, low), h('td', { class: 'num' }, value), h('td', { class: 'num' }, high))))));
}

// ---- Fleet ---------------------------------------------------------------------------------------------------------

const order = { shown: null, of: '', held: false, release: false };

/** Whether somebody is at the list: its order then stays as it is. */
function listInUse() {
  const rows = $('#rows');
  if (!rows) return false;
  const selection = getSelection();
  const selected = selection && !selection.isCollapsed && rows.contains(selection.anchorNode);
  return rows.matches(':hover') || rows.contains(document.activeElement) || selected || scrollY > 4;
}
function inOrder(rows, key) {
  const wanted = rows.map((row) => row.id);
  let ids = wanted;
  if (order.shown && order.of === key && !order.release && listInUse()) {
    const there = new Set(wanted), before = new Set(order.shown);
    ids = [...order.shown.filter((id) => there.has(id)), ...wanted.filter((id) => !before.has(id))];
  }
  Object.assign(order, { shown: ids, of: key, held: ids.join('\n') !== wanted.join('\n'), release: false });
  const byId = new Map(rows.map((row) => [row.id, row]));
  return ids.map((id) => byId.get(id));
}

function fleetLead(total) {
  const { standings, waiting, declined } = frame;
  const likely = standings.at_risk, failing = standings.failing;
  const first = likely ? [h('b', null, `${likely} of ${plural(total, 'component', 'components')} ${likely === 1 ? 'is' : 'are'} likely to fail within ${likely === 1 ? 'its' : 'their'} horizon.`)]
    : [h('b', null, total - standings.learning - standings.unknown > 0 ? `None of ${plural(total, 'component', 'components')} is likely to fail within its horizon.` : `Nothing can be said yet of ${plural(total, 'component', 'components')}.`)];
  if (failing) first.unshift(h('b', { class: 'risk' }, `${failing} ${failing === 1 ? 'is' : 'are'} failing now. `));
  const rest = [];
  if (waiting) rest.push(' ', h('a', { href: '#/plan?at=waiting' }, `${plural(waiting, 'action waits', 'actions wait')} for you`), '.');
  if (declined) rest.push(' ', h('a', { href: '#/plan?at=held' }, `${declined} ${declined === 1 ? 'is' : 'are'} held back`), '.');
  if (standings.learning) rest.push(` ${standings.learning} ${standings.learning === 1 ? 'is' : 'are'} still learning.`);
  if (standings.unknown) rest.push(` Of ${standings.unknown} nothing is known.`);
  return h('p', { class: 'lead' }, first, rest);
}

function fleetRow(row) {
  const known = row.probability != null;
  const missing = h('span', { class: 'mute' }, row.why_unknown ?? 'not known');
  return h('tr', { role: 'row', 'data-key': row.id, 'data-href': link(row.id) },
    cell('num mute rank', row.rank ?? ''),
    cell('full', name(row.id, { 'data-row': row.id })),
    cell('', state(row)),
    cell('num nowrap', known ? [h('b', null, percent(row.probability)), ' ', h('span', { class: 'mute small' }, `within ${seconds(row.horizon_seconds)}`)] : h('span', { class: 'mute' }, 'none')),
    cell(known ? 'num nowrap' : 'num full', known ? breachIn(row) : missing, known && row.eta_seconds?.q50 != null ? 'in' : null),
    cell('full cell-spark', spark(row)),
    cell('num nowrap', row.health == null ? h('span', { class: 'mute' }, 'unknown') : [two(row.health), meter(row.health)], 'health'),
    cell('num', row.expected_loss == null ? h('span', { class: 'mute' }, 'unknown') : two(row.expected_loss), 'loss'),
    cell('full', lastDecision(row.decision)));
}

function nothingYet() {
  const base = location.origin + location.pathname.replace(/[^/]*$/, '');
  if (!frame.rules) {
    return blank('No rule looks ahead yet', h('p', null, 'forestall foresees what its rules name, and none is loaded. Name rule files with ', h('span', { class: 'mono' }, 'rule_files'), ' in the main file and reload it.'));
  }
  if (!frame.series) {
    return blank('Nothing has arrived yet', h('p', null, 'forestall is up and listening; no samples are in its store. Add this to Prometheus and reload it:'),
      h('pre', { class: 'mono', tabindex: 0 }, `remote_write:\n  - url: ${base}api/v1/write`),
      h('p', { class: 'mute' }, 'Then this page fills by itself, usually within a minute. If it does not, ', h('a', { href: 'metrics' }, 'what was refused is counted'), ' in ', h('span', { class: 'mono' }, 'forestall_remote_write_samples_total'), '.'));
  }
  return blank('No component yet', h('p', null, frame.at == null ? `Samples arrive. The first pass over the rules comes within ${seconds(frame.interval_seconds)}.`
    : `Samples arrive (${plural(frame.series, 'series', 'series')}), but no expression of a rule has an answer.`), faults(), h('p', null, h('a', { href: '#/rules' }, 'See the rules')));
}
function faults() {
  const found = frame.faults ?? [];
  return found.length ? [h('h2', null, 'Could not be evaluated'), list(found.map((fault) => [h('b', null, fault.what), `: ${fault.why}`]))] : [];
}

const fleet = {
  title: 'Fleet',
  async read({ params }) {
    const query = new URLSearchParams({ limit: params.get('limit') ?? 50 });
    for (const wanted of ['find', 'standing']) if (params.get(wanted)) query.set(wanted, params.get(wanted));
    return get(`components?${query}`);
  },
  show({ components, total }, { params }) {
    const all = Object.values(frame.standings).reduce((sum, count) => sum + count, 0);
    if (!all) return nothingYet();
    const filtered = params.get('find') || params.get('standing');
    const rows = inOrder(components, params.toString());
    const columns = [
      column('#', 'num rank'), column('Component'), column('State'), column('Probability', 'num'), column('Breach in', 'num'),
      column(h('div', { class: 'axis' }, h('span', null, 'two horizons back'), h('span', null, 'now to horizon'))),
      column('Health', 'num'), column('Expected loss', 'num', { 'aria-sort': 'descending' }), column('Decision'),
    ];
    const more = total - components.length;
    const options = [['', 'All states'], ...Object.entries(STATES).filter(([code]) => code !== 'acting').map(([code, [text]]) => [code, text])];
    return [
      h('h1', { class: 'vh' }, 'Fleet'), fleetLead(all),
      h('p', { class: 'mute small' }, `Ordered by expected loss: (1 − health) × impact. Mode ${MODES[frame.mode] ?? frame.mode}.`),
      h('div', { class: 'bar' },
        h('label', { class: 'grow' }, h('span', { class: 'vh' }, 'Find a component'), h('input', { class: 'field', type: 'search', id: 'find', placeholder: 'Find a component', value: params.get('find') ?? '', 'data-param': 'find', autocomplete: 'off' })),
        select('State', 'standing', options, params), h('span', { class: 'push' }),
        h('span', { class: 'mute small' }, `${components.length} of ${total} shown`)),
      h('div', { class: order.held ? 'held' : 'held vh' }, order.held ? h('button', { class: 'btn', type: 'button', 'data-do': 'reorder' }, 'Order changed, show') : null),
      rows.length ? table({ class: 'list fleet' }, 'Components by expected loss', columns, rows.map(fleetRow))
        : h('p', { class: 'blank' }, 'No component is like that. ', filtered ? h('a', { href: '#/fleet' }, 'Show all') : null),
      more > 0 ? h('p', null, h('a', { href: `#/fleet?${withParam(params, 'limit', components.length + 100)}` }, `${more} more`)) : null,
      faults(),
    ];
  },
};

function select(label, param, options, params) {
  return h('label', null, h('span', { class: 'vh' }, label), h('select', { class: 'field', 'data-param': param },
    options.map(([code, text]) => h('option', { value: code, selected: (params.get(param) ?? '') === code }, text))));
}
function withParam(params, param, value) {
  const next = new URLSearchParams(params);
  if (value) next.set(param, value); else next.delete(param);
  return next.toString();
}

// ---- Component -----------------------------------------------------------------------------------------------------

const component = {
  title: 'Component',
  async read({ id }) {
    const [detail, { decisions }] = await Promise.all([get(`components/${encoded(id)}`), get(`decisions?${new URLSearchParams({ component: id, limit: 50 })}`)]);
    return { ...detail, decided: flatten(decisions, id) };
  },
  show(detail, { params }) {
    const wanted = params.get('signal');
    const signal = detail.signals.find((one) => `${one.rule}/${one.signal}` === wanted) ?? detail.signals[0];
    const place = $('#view');
    const styles = getComputedStyle(place);
    const inner = place.clientWidth - parseFloat(styles.paddingLeft) * 2;
    const width = Math.max(220, inner - (innerWidth <= 720 ? 26 : 34));
    return [
      h('p', { class: 'small' }, h('a', { href: backHash(), 'data-do': 'back' }, 'Fleet'), h('span', { class: 'mute' }, detail.rank ? ` / number ${detail.rank} by expected loss` : ' / without rank')),
      h('div', { class: 'bar' }, h('h1', { class: 'name' }, nameParts(detail.id)), state(detail), lastChip(detail)),
      h('p', { class: 'lead' }, componentLead(detail)), facts(detail),
      signal ? h('div', { class: 'card' }, h('h2', null, `${signal.rule}/${signal.signal}`), chart(detail, signal, width)) : null,
      h('div', { class: 'cols' },
        h('section', null, h('h2', null, 'Why'), detail.why.length ? list(detail.why) : h('p', { class: 'mute' }, 'Nothing is known of its signals.'),
          h('h2', null, 'What would change it'), detail.would_change.length ? list(detail.would_change) : h('p', { class: 'mute' }, 'Nothing needs to change.'),
          h('h2', null, 'Signals'), signalTable(detail, signal),
          detail.declined.length ? [h('h2', null, 'Held back'), h('ul', { class: 'steps' }, detail.declined.map((held) => heldItem(held, false)))] : null,
          labels(detail)),
        h('section', null, detail.quality.map(record),
          h('h2', null, 'Decisions'), componentDecisions(detail))),
    ];
  },
};
const lastChip = (detail) => (detail.decision && detail.decision.outcome !== 'declined' ? lastDecision(detail.decision) : null);

function componentLead(detail) {
  const horizon = seconds(detail.horizon_seconds);
  if (detail.standing === 'failing') return `It is failing now: ${detail.worst?.signal ?? 'a signal'} is beyond its threshold.`;
  if (detail.standing === 'learning') return `Learning: ${detail.why_unknown ?? 'too little history'}. Nothing is foreseen before that.`;
  if (detail.probability == null) return `Unknown: ${detail.why_unknown ?? 'no data'}.`;
  const soonest = detail.eta_seconds.q50 ?? detail.eta_seconds.q10;
  const likely = detail.standing === 'at_risk' ? 'It is likely to fail' : 'It is not likely to fail';
  const by = detail.standing === 'at_risk' && soonest != null ? `, at about ${clock(detail.at + soonest * 1000)}` : '';
  return `${likely} within ${horizon}${by}${detail.worst ? `; ${detail.worst.signal} is the nearest to its threshold` : ''}.`;
}

function facts(detail) {
  const fact = (term, value, more) => h('div', null, h('dt', null, term), h('dd', null, value, more ? h('small', null, more) : null));
  const unknown = h('span', { class: 'mute' }, 'unknown');
  const known = detail.probability != null;
  const { q10, q50 } = detail.eta_seconds;
  const slope = detail.slope_per_hour;
  const trend = slope == null || Math.abs(slope) < 0.005 ? 'level' : `${slope < 0 ? 'falling' : 'rising'} ${two(Math.abs(slope))}/h`;
  return h('dl', { class: 'facts' },
    fact(`Probability within ${seconds(detail.horizon_seconds)}`, known ? percent(detail.probability) : unknown, known && detail.probability_low != null && detail.probability_low < detail.probability ? `at least ${percent(detail.probability_low)}` : null),
    fact('Breach in', known ? breachIn(detail) : unknown, known && q10 != null && q50 != null && detail.standing !== 'failing' ? `earliest ${seconds(q10)}` : null),
    fact('Health', detail.health == null ? unknown : two(detail.health), detail.health == null ? null : trend),
    fact('Impact', two(detail.impact)),
    fact('Expected loss', detail.expected_loss == null ? unknown : two(detail.expected_loss)));
}

function signalTable(detail, chosen) {
  const rows = detail.signals.map((signal) => {
    const id = `${signal.rule}/${signal.signal}`;
    const loudest = [...signal.channels].sort((a, b) => b.score - a.score)[0];
    const speaks = loudest && loudest.score >= 0.2 ? loudest.name : null;
    return h('tr', { role: 'row' },
      cell('full', h('a', { class: 'name', href: `${link(detail.id)}?${new URLSearchParams({ signal: id })}`, 'aria-current': signal === chosen ? 'true' : null }, h('i', null, `${signal.rule}/`, h('wbr')), signal.signal, signal === chosen ? h('span', { class: 'mute small' }, ' shown') : null)),
      cell('num nowrap', signal.probability == null ? h('span', { class: 'mute' }, signal.why_unknown ?? 'none') : percent(signal.probability), 'P'),
      cell('num nowrap', signal.current == null ? 'none' : figure(signal.current), 'now'),
      cell('num nowrap', signal.threshold == null ? 'none' : `${signal.side === 'below' ? 'under' : 'over'} ${figure(signal.threshold)}`, 'breach'),
      cell('', speaks ?? h('span', { class: 'mute' }, 'none speaks'), 'channel'));
  });
  return table({ class: 'stack' }, 'Signals', [column('Signal'), column('P', 'num'), column('Now', 'num'), column('Breach', 'num'), column('Channel')], rows);
}

/** How often a rule was right, from what became of its predictions. */
function verdict(quality) {
  const count = (what) => quality?.predictions?.[what] ?? 0;
  return { right: count('tp'), warned: count('tp') + count('fp'), missed: count('fn'), acted: count('acted_ok') + count('acted_failed') };
}
function record(quality) {
  const { right, warned, missed, acted } = verdict(quality);
  const window = [...quality.windows].reverse().find((one) => one.precision != null || one.brier != null);
  return h('div', { class: 'card' }, h('h2', null, `How often ${quality.rule} was right`),
    warned < 5 ? h('p', null, 'Not enough warnings yet to say.') : h('p', null, h('b', null, `${right} of its ${warned} resolved warnings came true.`), ` ${missed === 0 ? 'No' : missed} of the looks taken within a horizon before a breach ${missed === 1 ? 'was' : 'were'} silent.`),
    acted ? h('p', { class: 'mute small' }, `Counted without ${plural(acted, 'prediction', 'predictions')} that were acted on; whether those were needed cannot be known.`) : null,
    window?.calibration_error != null ? h('p', { class: 'small' }, `Over ${window.window}, what it said and what came differ by ${percent(window.calibration_error)} on average.`) : null,
    quality.coverage != null ? h('p', { class: 'small' }, `${percent(quality.coverage)} of values fell inside the 95${NBSP}% interval that was forecast for them.`) : null);
}

function componentDecisions(detail) {
  const done = detail.actions.map((action) => ({ at: action.decided_at, text: sentence(action.sentence), chip: outcome(action.given_back ? 'reverted' : action.outcome ?? 'under_way') }));
  const held = detail.decided.filter((row) => row.reason).map((row) => ({ at: row.at, text: row.action ? sentence(words(row.action)) : 'Nothing', chip: reason(row.reason), id: row.decision }));
  const rows = [...done, ...held].sort((a, b) => b.at - a.at).slice(0, 20);
  if (!rows.length) return h('p', { class: 'mute' }, 'None yet.');
  return [
    table({ class: 'stack' }, 'Decisions on this component, newest first', [column('Time'), column('What'), column('Outcome', 'num')],
      rows.map((row) => h('tr', { role: 'row' }, cell('mute', time(row.at)), cell('', row.id ? decisionLink(row.id, row.text, ` at ${when(row.at)}`) : row.text), cell('num', row.chip)))),
    h('p', { class: 'small' }, h('a', { href: `#/decisions?component=${encodeURIComponent(detail.id)}` }, 'All decisions on it')),
  ];
}
function labels(detail) {
  const all = Object.entries(detail.labels);
  return all.length ? [h('h2', null, 'Labels'), h('p', { class: 'small mute' }, all.map(([label, value], place) => `${place ? ', ' : ''}${label}=${value}`))] : null;
}

// ---- Decisions -----------------------------------------------------------------------------------------------------

/** One row for each action, and for each refusal that the decision before did not have. */
function flatten(decisions, only) {
  const rows = [];
  decisions.forEach((decision, place) => {
    const href = `#/decisions/${encodeURIComponent(decision.id)}`;
    const common = { at: decision.at, decision: decision.id, href };
    for (const action of decision.actions) {
      if (!only || action.component === only) rows.push({ ...common, component: action.component, sentence: action.sentence, why: forPeople(action.why), outcome: action.outcome ?? 'under_way', key: action.id });
    }
    const before = new Set((decisions[place + 1]?.declined ?? []).map((held) => `${held.component} ${held.reason}`));
    const seen = new Set();
    for (const held of decision.declined) {
      const key = `${held.component} ${held.reason}`;
      if (before.has(key) || seen.has(key) || (only && held.component !== only)) continue;
      seen.add(key);
      rows.push({ ...common, component: held.component, action: held.action, reason: held.reason, key: `${decision.id} ${key}` });
    }
  });
  return rows;
}

const decisions = {
  title: 'Decisions',
  async read({ id, params }) {
    if (id) return get(`decisions/${encodeURIComponent(id)}`);
    const query = new URLSearchParams({ limit: 100 });
    for (const wanted of ['component', 'outcome', 'reason', 'before']) if (params.get(wanted)) query.set(wanted, params.get(wanted));
    return get(`decisions?${query}`);
  },
  show(data, route) {
    return route.id ? decision(data) : decisionList(data, route.params);
  },
};

function decisionList({ decisions: found }, params) {
  const find = (params.get('find') ?? '').toLowerCase(), only = params.get('component');
  const wanted = (row) => row.component.toLowerCase().includes(find) && (!params.get('outcome') || row.outcome === params.get('outcome')) && (!params.get('reason') || row.reason === params.get('reason'));
  const rows = flatten(found, only).filter(wanted);
  const filtered = [...params.keys()].length > 0;
  const outcomes = ['confirmed', 'applied', 'unchanged', 'dry_run', 'failed', 'unknown', 'expired', 'cancelled', 'reverted'].map((code) => [code, sentence(OUTCOMES[code][0])]);
  const reasons = Object.entries(REASONS).map(([code, text]) => [code, sentence(text)]);
  const oldest = found.at(-1)?.seq;
  const body = rows.map((row) => h('tr', { role: 'row', 'data-key': row.key, 'data-href': row.href },
    cell('mute', time(row.at)),
    cell('full', name(row.component, { 'data-row': row.key })),
    cell('full', row.sentence ? [sentence(row.sentence), row.why ? h('span', { class: 'mute small' }, ` ${row.why}`) : null] : row.action ? h('span', { class: 'mute' }, sentence(words(row.action))) : []),
    cell('', row.outcome ? outcome(row.outcome) : h('span', { class: 'mute' }, 'not done')),
    cell('', row.reason ? reason(row.reason) : []),
    cell('num', decisionLink(row.decision, 'Explain', ` ${shortName(row.component)} at ${when(row.at)}`))));
  return [
    h('h1', null, 'Decisions'), h('p', { class: 'mute' }, 'What was wanted, done or declined, newest first.'),
    h('div', { class: 'bar' },
      h('label', { class: 'grow' }, h('span', { class: 'vh' }, 'Find a component'), h('input', { class: 'field', type: 'search', id: 'find', placeholder: 'Find a component', value: params.get('find') ?? '', 'data-param': 'find', autocomplete: 'off' })),
      select('Outcome', 'outcome', [['', 'All outcomes'], ...outcomes], params), select('Reason', 'reason', [['', 'All reasons'], ...reasons], params),
      only ? h('span', null, 'Only ', name(only)) : null, filtered ? h('a', { href: '#/decisions' }, 'Show all') : null),
    rows.length ? table({ class: 'list stack' }, 'Decisions, newest first', [column('Time'), column('Component'), column('Action'), column('Outcome'), column('Held back by'), column(h('span', { class: 'vh' }, 'More'))], body)
      : h('div', { class: 'blank' }, h('p', null, filtered ? 'No decision is like that.' : 'Nothing has been decided yet. A decision is written down when something is done, or newly held back.')),
    found.length >= 100 ? h('p', null, h('a', { href: `#/decisions?${withParam(params, 'before', oldest)}` }, 'Older')) : null,
  ];
}

function decisionLead({ actions, waiting, declined_total }) {
  const parts = [];
  if (actions.length) parts.push(`${plural(actions.length, 'action was', 'actions were')} taken`);
  if (waiting.length) parts.push(`${waiting.length} waited for a person`);
  if (declined_total) parts.push(`${declined_total} ${declined_total === 1 ? 'was' : 'were'} held back`);
  return parts.length ? `${parts.join('; ')}.` : 'What had been held back before was no longer wanted.';
}
function decision({ shown, decision: record, replay }) {
  const acted = (action) => {
    const settled = record.outcomes[action.id], judged = record.verdicts[action.id], attempts = record.attempts[action.id]?.length ?? 0;
    return actionItem(action, outcome(settled?.outcome ?? 'under_way'), [
      attempts > 1 ? `${attempts} attempts.` : null, judged ? sentence(forPeople(judged.detail)) : null,
    ].filter(Boolean).join(' '));
  };
  const learnt = [...record.plan.verdicts, ...record.plan.extended];
  const same = !replay ? 'What it was decided from is no longer kept, so it cannot be made again.'
    : replay.same ? 'Made again from the same input, it comes out the same.' : 'Made again from the same input, it comes out differently.';
  return [
    h('p', { class: 'small' }, h('a', { href: '#/decisions' }, 'Decisions')), h('h1', null, `Decision of ${when(record.at)}`),
    h('p', { class: 'lead' }, decisionLead(shown)),
    h('p', { class: replay?.same === false ? 'risk' : 'mute' }, same),
    section('Done', shown.actions.map(acted), 'Nothing was done.'),
    shown.waiting.length ? section('Waited for a person', shown.waiting.map((action) => actionItem(action, outcome('waiting')))) : null,
    section('Held back', shown.declined.map((held) => heldItem(held, true)), 'Nothing was held back.'),
    learnt.length ? section('Found out about earlier actions', learnt.map((one) => h('li', null, sentence(forPeople(one.detail))))) : null,
  ];
}

// ---- Plan ----------------------------------------------------------------------------------------------------------

function section(title, items, empty, id) {
  return h('section', { id, tabindex: id ? -1 : null }, h('h2', null, title), items.length ? h('ol', { class: 'steps' }, items) : h('p', { class: 'mute' }, empty));
}
function actionItem(action, chip, more) {
  return h('li', { 'data-key': action.id }, name(action.component, { 'data-row': action.id }), ' ', chip,
    h('p', null, h('b', null, sentence(action.sentence)), action.expires_at ? [', until ', time(action.expires_at)] : null, '.'),
    action.why ? h('p', { class: 'mute small' }, sentence(forPeople(action.why))) : null,
    action.makes_room_for ? h('p', { class: 'mute small' }, 'It makes room for another action of this plan.') : null,
    more ? h('p', { class: 'mute small' }, more) : null);
}
function heldItem(held, withName) {
  return h('li', { 'data-key': `${held.component} ${held.reason} ${held.policy}` },
    withName ? [name(held.component, { 'data-row': `${held.component} ${held.reason}` }), ' '] : null,
    held.action ? `${sentence(words(held.action))} ` : null, reason(held.reason),
    h('p', null, sentence(forPeople(held.detail))), held.released_when ? h('p', { class: 'mute small' }, `Released when ${forPeople(held.released_when)}`) : null);
}

function planLead({ actions, waiting, declined_total, in_force }) {
  const now = actions.length ? `${plural(actions.length, 'action', 'actions')}` : 'no action';
  const parts = [`It takes ${now} now`];
  if (waiting.length) parts.push(`${waiting.length} ${waiting.length === 1 ? 'waits' : 'wait'} for you`);
  if (in_force.length) parts.push(`${in_force.length} taken earlier ${in_force.length === 1 ? 'is' : 'are'} in force`);
  parts.push(declined_total ? `${declined_total} held back` : 'nothing is held back');
  return `${parts.join('; ')}.`;
}

function room(pools) {
  const bars = pools.flatMap(({ pool, nodes }) => {
    const names = [...new Set(nodes.flatMap((node) => Object.keys(node.allocatable)))].sort();
    return names.map((resource) => {
      const sum = (part) => nodes.reduce((total, node) => total + (node[part][resource] ?? 0), 0);
      const all = sum('allocatable'), used = sum('used');
      const share = all > 0 ? used / all : 0;
      return h('div', { class: 'room', 'data-key': `${pool} ${resource}` }, h('span', null, `${pool}, ${resource}`),
        s('svg', { viewBox: '0 0 100 10', preserveAspectRatio: 'none', role: 'img', 'aria-label': `${percent(share)} used` }, s('rect', { class: 'all', width: 100, height: 10 }), s('rect', { class: 'part', width: Math.min(100, share * 100).toFixed(1), height: 10 })),
        h('span', { class: 'mute nowrap' }, `${percent(share)} used, ${figure(Math.max(0, all - used))} free`));
    });
  });
  return h('div', { class: 'card' }, h('h2', null, 'Room'), bars.length ? bars : h('p', { class: 'mute' }, 'No capacity is known; policies that need room hold back.'));
}

function gates({ frame: { mode, hold_until, journal_ok, breakers, now }, usage, leader }) {
  const rows = [
    ['Mode', MODES[mode] ?? mode],
    ['Start', hold_until > now ? ['holds until ', time(hold_until)] : 'no hold'],
    ...(breakers.length ? breakers.map((breaker) => ['Breaker', `open for ${breaker.kind}: ${breaker.at_risk} of ${breaker.of} at risk`]) : [['Breaker', 'closed']]),
    ...Object.entries(usage).map(([policy, used]) => [`Budget, ${policy}`, `${used.spent} of ${used.budget} spent; ${used.under_action} of ${used.under_action_max} under action`]),
    ['Leader', leader ? 'this replica' : 'another replica'], ['Journal', journal_ok ? 'writing' : h('b', { class: 'risk' }, 'cannot be written')],
  ];
  return h('div', { class: 'card' }, h('h2', null, 'Gates'), h('table', null, h('tbody', null, rows.map(([term, value]) => h('tr', null, h('th', { scope: 'row' }, term), h('td', { class: 'num' }, value))))));
}

const plan = {
  title: 'Plan',
  async read() {
    const [data, around] = await Promise.all([get('plan'), get('gates')]);
    return { ...data, around };
  },
  show(data) {
    return [
      h('h1', null, 'Plan'), h('p', { class: 'lead' }, planLead(data)),
      h('p', { class: 'mute small' }, 'Decided at ', time(data.at), '. Nothing on this page changes anything.'),
      h('div', { class: 'cols' },
        h('div', null,
          data.waiting.length ? section('Waits for you', data.waiting.map((action) => actionItem(action, outcome('waiting'), 'A person with the operator token releases it.')), '', 'waiting') : null,
          section('Does now, by rank', data.actions.map((action) => actionItem(action, outcome(action.dry_run ? 'dry_run' : 'acting'))), 'Nothing needs doing now.'),
          section('Held back', data.declined.map((held) => heldItem(held, true)), 'Nothing is held back.', 'held'),
          section('In force from earlier', data.in_force.map((action) => actionItem(action, outcome('in_force'))), 'No earlier action is in force.')),
        h('div', null, room(data.pools), gates(data.around))),
    ];
  },
};

// ---- Rules ---------------------------------------------------------------------------------------------------------

const rules = {
  title: 'Rules',
  read: () => get('rules'),
  show(data) {
    if (!data.rules.length) return blank('No rule looks ahead yet', h('p', null, 'Name rule files with ', h('span', { class: 'mono' }, 'rule_files'), ' in the main file and reload it.'));
    const none = h('span', { class: 'mute' }, 'no record');
    const body = data.rules.map((rule) => {
      const { right, warned, missed, acted } = verdict(rule.quality);
      const window = [...(rule.quality?.windows ?? [])].reverse().find((one) => one.precision != null || one.brier != null);
      const share = (value) => (value == null ? none.cloneNode(true) : percent(value));
      return h('tr', { role: 'row', 'data-key': rule.rule },
        cell('full', [h('b', null, rule.rule), h('br'), h('span', { class: 'mute small' }, `${rule.kind}, ${seconds(rule.horizon_seconds)} ahead`)]),
        cell('num nowrap', warned ? `${right} of ${warned}` : 'none yet', 'right'), cell('num', missed, 'missed'), cell('num', acted, 'acted on'),
        cell('num nowrap', share(window?.recall), 'caught'), cell('num', window?.brier == null ? none.cloneNode(true) : two(window.brier), 'Brier'),
        cell('num nowrap', share(window?.calibration_error), 'calibration error'), cell('num nowrap', share(rule.quality?.coverage), 'coverage'),
        cell('full', h('details', null, h('summary', null, plural(rule.signals.length, 'signal', 'signals')), rule.signals.map((signal) => h('p', { class: 'small' }, h('b', null, signal.signal), ` breaches ${signal.side} `, h('span', { class: 'mono' }, String(signal.threshold)), h('br'), h('span', { class: 'mono' }, signal.expr))))));
    });
    return [
      h('h1', null, 'Rules'), h('p', { class: 'mute' }, 'What each rule has been worth. Predictions that were acted on are counted apart: whether they were needed cannot be known.'),
      table({ class: 'stack' }, 'Rules and their record', [column('Rule'), column('Warnings right', 'num'), column('Missed', 'num'), column('Acted on', 'num'), column('Breaches caught', 'num'), column('Brier score', 'num'), column('Calibration error', 'num'), column('In 95 % interval', 'num'), column('Signals')], body),
      faults(),
    ];
  },
};

// ---- What keeps it alive -------------------------------------------------------------------------------------------

const VIEWS = { fleet, c: component, decisions, plan, rules };
const KEYS = ['#/fleet', '#/decisions', '#/plan', '#/plan?at=waiting', '#/rules'];
const RETRY_MAX = 30e3, SLOW = 400, ANSWER_WITHIN = 15e3, LONGEST = 60e3, SHORTEST = 2e3;

let frame = null;          // what stands around every view, from the newest answer
let current = null;        // the route shown
let shown = null;          // the newest data of that route
let problem = null;        // why there is no newer data
let failures = 0, ticket = 0, timer = 0;
let pace = null;           // the server's clock against ours: a simulated one runs faster
let lastFleet = '#/fleet', lastRow = null, heard = null;

class NoAnswer extends Error {}
class Refused extends Error {
  constructor(status, message) { super(message); this.status = status; }
}
/** Reads from our API; relative, so that it works under any prefix. */
async function get(path) {
  let response, body;
  try {
    response = await fetch(API + path, { headers: { accept: 'application/json' }, signal: AbortSignal.timeout(ANSWER_WITHIN) });
    body = await response.json();
  } catch (cause) {
    throw new NoAnswer(response ? `an answer that cannot be read (HTTP ${response.status})` : 'no connection', { cause });
  }
  if (body.status === 'success') return body.data;
  // Before the first pass there is nothing to show, and what is unknown may come: neither is a broken connection.
  if (response.status === 503 || response.status === 404 || response.status === 400) throw new Refused(response.status, body.error);
  throw new NoAnswer(body.error ?? `HTTP ${response.status}`);
}

function readRoute() {
  const [path, query] = location.hash.replace(/^#\/?/, '').split('?');
  const [view, ...rest] = path.split('/');
  const decode = (part) => { try { return decodeURIComponent(part); } catch { return part; } };
  const known = Object.hasOwn(VIEWS, view) ? view : 'fleet';
  return { view: known, id: rest.map(decode).join('/'), params: new URLSearchParams(query ?? ''), path: `${known}/${rest.join('/')}` };
}
const backHash = () => lastFleet;

function navigate() {
  const before = current;
  current = readRoute();
  if (current.view === 'fleet') lastFleet = location.hash || '#/fleet';
  const moved = !before || before.path !== current.path;
  if (moved) {
    shown = null;
    problem = null;
    cursor.at = null;
    if (before) {
      scrollTo(0, 0);
      $('#main').focus({ preventScroll: true });
    }
    drawFrame();
  } else if (shown) {
    draw();
  }
  load(moved);
}

async function load(moved) {
  const mine = ++ticket, route = current;
  clearTimeout(timer);
  const slow = setTimeout(() => { if (mine === ticket && !shown) place([skeleton()]); }, SLOW);
  try {
    const data = await VIEWS[route.view].read(route);
    if (mine !== ticket) return;
    takeFrame(data.frame);
    [shown, problem, failures] = [data, null, 0];
  } catch (error) {
    if (mine !== ticket) return;
    problem = error;
    failures = error instanceof Refused ? 0 : failures + 1;
    if (!(error instanceof Refused) && !(error instanceof NoAnswer)) throw error;
  } finally {
    clearTimeout(slow);
    if (mine === ticket) schedule();
  }
  draw();
  if (moved) arrive(route);
}

/** After the first drawing of a view: back to the row one came from, or to the part that was asked for. */
function arrive(route) {
  if (route.view === 'fleet' && lastRow) {
    const row = [...document.querySelectorAll('[data-row]')].find((one) => one.dataset.row === lastRow);
    lastRow = null;
    row?.focus();
  }
  const part = route.params.get('at');
  if (route.view === 'plan' && ['waiting', 'held'].includes(part)) {
    const target = document.getElementById(part);
    target?.scrollIntoView();
    target?.focus({ preventScroll: true });
  }
}

function takeFrame(next) {
  const wall = performance.now();
  let speed = pace?.speed;
  if (pace && wall - pace.wall > 500) speed = Math.max(1, (next.now - pace.now) / (wall - pace.wall));
  pace = { wall, now: next.now, speed };
  frame = next;
}
function wait() {
  if (failures) return Math.min(RETRY_MAX, 1000 * 2 ** failures);
  // The second look comes soon: it tells how fast the server's clock runs.
  if (pace && !pace.speed) return SHORTEST;
  const interval = frame?.at == null ? 5e3 : frame.interval_seconds * 1000;
  return Math.min(LONGEST, Math.max(SHORTEST, interval / (pace?.speed ?? 1)));
}
function schedule() {
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(load, wait());
}

function place(nodes) {
  const next = document.createElement('div');
  next.append(...nodes.flat(Infinity).filter((node) => node != null && node !== false));
  morphChildren($('#view'), next);
}
const skeleton = () => h('div', { role: 'status' }, h('p', { class: 'vh' }, 'Loading'), [62, 88, 74, 91, 56, 80].map((share) => s('svg', { class: 'sk', 'aria-hidden': 'true' }, s('rect', { width: `${share}%`, height: 12 }))));

function draw() {
  drawFrame();
  $('#view').classList.toggle('old', problem instanceof NoAnswer);
  if (shown) place([VIEWS[current.view].show(shown, current)].flat());
  else if (problem instanceof Refused && problem.status === 503) {
    place([blank('Nothing to show yet', h('p', null, `${sentence(problem.message)}. This page fills by itself once it has been.`), h('p', null, h('a', { href: '#/fleet' }, 'Fleet')))]);
  } else if (problem instanceof Refused) {
    place([blank('Not here', h('p', null, `${sentence(problem.message)}. It may have gone since.`), h('p', null, h('a', { href: '#/fleet' }, 'Fleet')))]);
  } else if (problem) {
    place([blank('No answer from forestall', h('p', null, sentence(`${problem.message}. Trying again by itself.`)))]);
  }
  if (shown) announce();
}

function drawFrame() {
  const within = current.view === 'c' ? 'fleet' : current.view;
  const nav = document.createElement('nav');
  for (const view of ['fleet', 'decisions', 'plan', 'rules']) {
    const count = view === 'plan' && frame?.waiting ? h('span', { class: 'count' }, frame.waiting, h('span', { class: 'vh' }, ' waiting')) : null;
    nav.append(h('a', { href: view === 'fleet' && current.view === 'c' ? lastFleet : `#/${view}`, 'aria-current': within === view ? 'page' : null }, VIEWS[view].title, count));
  }
  morphChildren($('#nav'), nav);
  const live = document.createElement('span');
  if (problem instanceof NoAnswer) live.append(h('span', { class: 'dot off' }), h('span', null, 'no answer'));
  else if (frame?.at != null) live.append(h('span', { class: 'dot' }), h('span', { class: 'long' }, 'as of'), h('time', { title: full(frame.at), datetime: new Date(frame.at).toISOString() }, clock(frame.at)));
  morphChildren($('#live'), live);
  const banner = document.createElement('div');
  banner.append(...bannerOf());
  morphChildren($('#banner'), banner);
  const foot = document.createElement('div');
  foot.append(h('span', null, `forestall ${frame?.version ?? ''}`), h('a', { href: 'metrics' }, 'Metrics'), h('span', { class: 'wide' }, 'Keys: ', h('kbd', null, '?')));
  morphChildren($('#foot'), foot);
  const name = current.id ? (current.view === 'c' ? shortName(current.id) : 'Decision') : VIEWS[current.view].title;
  document.title = `${name} · forestall`;
}

/** At most one banner, the worst first. */
function bannerOf() {
  const banner = (bad, head, text, button) => [h('div', { class: bad ? 'banner bad' : 'banner' }, h('div', { class: 'wrap' }, h('p', null, h('b', null, head), ` ${text}`), button))];
  if (problem instanceof NoAnswer) {
    const since = frame?.at ? ` since ${clock(frame.now)}` : '';
    return banner(true, `No answer from forestall${since}: ${problem.message}.`, `${shown ? 'What you see is from then. ' : ''}Trying again in ${span(wait())}.`, h('button', { class: 'btn', type: 'button', 'data-do': 'retry' }, 'Try now'));
  }
  if (!frame) return [];
  if (!frame.journal_ok) return banner(true, 'The journal cannot be written.', 'Forecasts go on. Nothing is acted on until it can be.');
  if (frame.breakers.length) {
    const [{ kind, at_risk, of }] = frame.breakers;
    return banner(false, `${at_risk} of ${of} components of kind ${kind} are at risk at once.`, 'More likely one cause, or bad data, than so many failures. Nothing is acted on there until it has been calm, or a person releases it.');
  }
  const silent = frame.now - frame.last_write_at;
  if (frame.series && frame.last_write_at && silent > Math.max(5 * MINUTE, 4 * frame.interval_seconds * 1000)) {
    return banner(true, `No samples have come for ${span(silent)}.`, 'What is foreseen gets old, and becomes unknown.');
  }
  const { learning, ...others } = frame.standings;
  if (learning && !Object.values(others).some(Boolean)) return banner(false, 'Learning.', 'Every component still needs more history. Nothing is foreseen or acted on until then.');
  if (frame.at != null && frame.mode !== 'observe' && frame.hold_until > frame.now) return banner(false, `Just started: nothing is acted on until ${when(frame.hold_until)}.`, 'Forecasts go on.');
  return [];
}

/** One message a cycle to those who listen, and only for what matters. */
function announce() {
  const rows = current.view === 'fleet' ? shown.components : [];
  const now = { waiting: frame.waiting, states: new Map([...(heard?.states ?? []), ...rows.map((row) => [row.id, row.standing])]), silent: problem instanceof NoAnswer };
  const worse = rows.filter((row) => heard?.states.has(row.id) && heard.states.get(row.id) !== row.standing && ['failing', 'at_risk'].includes(row.standing));
  let message = '';
  if (now.silent && !heard?.silent) message = 'No answer from forestall.';
  else if (worse.length) message = worse.slice(0, 3).map((row) => `${shortName(row.id)}: ${STATES[row.standing][0].toLowerCase()}`).join('; ') + (worse.length > 3 ? `; and ${worse.length - 3} more.` : '.');
  else if (heard && now.waiting > heard.waiting) message = `${plural(now.waiting, 'action waits', 'actions wait')} for you.`;
  if (message) $('#say').textContent = message;
  heard = now;
}

// ---- What the reader does --------------------------------------------------------------------------------------------

const THEMES = {
  auto: () => [s('circle', { cx: 8, cy: 8, r: 6 }), s('path', { class: 'solid', d: 'M8 2a6 6 0 0 1 0 12z' })],
  light: () => [s('circle', { cx: 8, cy: 8, r: 3.2 }), s('path', { d: 'M8 .8v2M8 13.2v2M.8 8h2M13.2 8h2M2.9 2.9l1.4 1.4M11.7 11.7l1.4 1.4M2.9 13.1l1.4-1.4M11.7 4.3l1.4-1.4' })],
  dark: () => [s('path', { d: 'M13 9.8A5.6 5.6 0 0 1 6.2 3a5.6 5.6 0 1 0 6.8 6.8z' })],
};
let theme = Object.hasOwn(THEMES, kept.get('theme') ?? '') ? kept.get('theme') : 'auto';
function drawChoices() {
  if (theme === 'auto') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  const button = $('#theme');
  button.title = `Theme: ${theme}`;
  button.setAttribute('aria-label', `Theme: ${theme}`);
  button.replaceChildren(s('svg', { class: 'glyph', width: 16, height: 16, viewBox: '0 0 16 16', 'aria-hidden': 'true' }, THEMES[theme]()));
  const times = $('#zone');
  const local = Intl.DateTimeFormat().resolvedOptions().timeZone;
  times.textContent = zone() ? 'UTC' : 'local';
  times.title = zone() ? 'Times are in UTC' : `Times are in your zone, ${local}`;
  times.setAttribute('aria-label', `${times.textContent} time: change`);
}

const DEEDS = {
  skip(event) { event.preventDefault(); $('#main').focus(); },
  theme() { theme = { auto: 'light', light: 'dark', dark: 'auto' }[theme]; kept.set('theme', theme); drawChoices(); },
  zone() { kept.set('zone', zone() ? 'local' : 'utc'); drawChoices(); draw(); },
  retry() { load(); },
  reorder() { order.release = true; scrollTo(0, 0); draw(); },
  back() { lastRow = current.id; },
};
document.addEventListener('click', (event) => {
  const deed = event.target.closest('[data-do]');
  if (deed) return void DEEDS[deed.dataset.do](event);
  const row = event.target.closest('tr[data-href]');
  // The link in a row is the control; a click elsewhere on the row is a convenience for the mouse.
  if (row && !event.target.closest('a, button, summary') && getSelection().isCollapsed) location.hash = row.dataset.href;
});

function filter(event) {
  const field = event.target.closest('[data-param]');
  if (!field) return;
  const params = new URLSearchParams(withParam(current.params, field.dataset.param, field.value));
  params.delete('before');
  const query = params.toString();
  history.replaceState(null, '', `#/${current.view}${query ? `?${query}` : ''}`);
  navigate();
}
document.addEventListener('input', filter);

let wantedCursor = null;
function pointTo(event) {
  const plot = event.target.closest('#chart');
  if (!plot || !scale) return;
  const box = plot.getBoundingClientRect();
  const x = (event.clientX - box.left) / box.width * scale.width;
  const share = Math.min(1, Math.max(0, (x - scale.left) / (scale.right - scale.left)));
  const first = wantedCursor == null;
  wantedCursor = scale.from + share * (scale.to - scale.from);
  if (first) requestAnimationFrame(() => { cursor.at = wantedCursor; wantedCursor = null; draw(); });
}
document.addEventListener('pointermove', pointTo);
document.addEventListener('pointerdown', pointTo);

function chartKey(event) {
  if (!scale) return false;
  const { signal, fan, from, to, detail } = scale;
  const step = (to - from) / 144;
  const at = cursor.at ?? detail.at;
  // An arrow goes to the next value, however far apart values are.
  const times = [...signal.past, ...(fan?.[0] ?? [])].map(([time]) => time);
  const next = {
    ArrowLeft: () => times.findLast((time) => time <= at - step) ?? from, ArrowRight: () => times.find((time) => time >= at + step) ?? to,
    PageUp: () => at - 12 * step, PageDown: () => at + 12 * step, Home: () => from, End: () => to, n: () => detail.at,
  }[event.key];
  if (!next) return false;
  event.preventDefault();
  cursor.at = Math.min(to, Math.max(from, next()));
  draw();
  return true;
}

function moveRow(by) {
  const rows = [...document.querySelectorAll('#view [data-row]')];
  if (!rows.length) return;
  const now = rows.findIndex((row) => row === document.activeElement || row.closest('tr, li')?.contains(document.activeElement));
  rows[Math.min(rows.length - 1, Math.max(0, now < 0 ? (by > 0 ? 0 : rows.length - 1) : now + by))].focus();
}

document.addEventListener('keydown', (event) => {
  if (event.metaKey || event.ctrlKey || event.altKey || $('#help').open) return;
  if (event.target.closest('#chart') && chartKey(event)) return;
  if (event.target.matches('input, select, textarea')) {
    if (event.key === 'Escape') event.target.blur();
    return;
  }
  if (kept.get('keys') === 'off' && event.key !== '?') return;
  const digit = '12345'.indexOf(event.key);
  if (event.key === 'j') moveRow(1);
  else if (event.key === 'k') moveRow(-1);
  else if (event.key === '?') $('#help').showModal();
  else if (event.key === '/' && $('#find')) { event.preventDefault(); $('#find').focus(); }
  else if (digit >= 0) location.hash = KEYS[digit];
  else if (event.key === 'Escape' && current.view === 'c') { lastRow = current.id; location.hash = backHash(); }
  else if (event.key === 'Escape' && current.view === 'decisions' && current.id) location.hash = '#/decisions';
});
$('#keys-on').checked = kept.get('keys') !== 'off';
$('#keys-on').addEventListener('change', (event) => kept.set('keys', event.target.checked ? 'on' : 'off'));

addEventListener('hashchange', navigate);
document.addEventListener('visibilitychange', () => { if (document.hidden) clearTimeout(timer); else load(); });
let width = innerWidth;
addEventListener('resize', () => { if (innerWidth !== width) { width = innerWidth; if (shown) draw(); } });

drawChoices();
navigate();
