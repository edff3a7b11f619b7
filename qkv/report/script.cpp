// The script of report pages: the pointer's read-out on line charts (arrow keys too), legend toggles, table
// sorting.

#include "qkv/report/assets.h"

namespace qkv {

std::string_view page_script() {
  return R"js((() => {
'use strict';

const number = (value) => {
  if (value === null || !isFinite(value)) return '\u2013';
  const size = Math.abs(value);
  let text;
  if (Number.isInteger(value) && size < 1e15) text = value.toLocaleString('en-US');
  else if (size >= 1e7 || size < 1e-3) text = value.toExponential(3).replace(/\.?0+e/, 'e').replace('e+', 'e');
  else text = value.toLocaleString('en-US', {maximumSignificantDigits: 5});
  return text.replace(/^-/, '\u2212');
};

const element = (name, attributes = {}, parent = null, text = '') => {
  const made = parent instanceof SVGElement
      ? document.createElementNS(parent.namespaceURI, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  if (parent) parent.append(made);
  return made;
};

function follow(figure) {
  const chart = JSON.parse(figure.dataset.chart);
  const plot = figure.querySelector('.plot');
  const svg = plot.querySelector('svg');
  const [left, top, right, bottom] = chart.plot;
  const part = (axis, value) => axis.log
      ? Math.log(value / axis.min) / Math.log(axis.max / axis.min) : (value - axis.min) / (axis.max - axis.min);
  const px = (value) => left + part(chart.x, value) * (right - left);
  const py = (value) => bottom + part(chart.y, value) * (top - bottom);
  const groups = [...svg.querySelectorAll('g[data-series]')];
  const shown = chart.series.map(() => true);
  for (const line of chart.series) {
    line.px = line.x.map((value, i) => line.y[i] === null ? NaN : px(value));
  }

  const layer = element('g', {class: 'hidden'}, svg);
  const hair = element('line', {class: 'hair', y1: top, y2: bottom}, layer);
  const spots = groups.map((group) => {
    const spot = element('g', {class: group.getAttribute('class').replace('faint', '')}, layer);
    return element('circle', {class: 'spot', r: 4}, spot);
  });
  const hit = element('rect', {class: 'hit', x: left, y: top, width: right - left, height: bottom - top}, svg);
  element('title', {}, hit);
  const tip = element('div', {class: 'tip hidden', role: 'status'}, figure);

  const nearest = (line, x) => {
    let best = -1, distance = Infinity;
    for (let i = 0; i < line.px.length; ++i) {
      const d = Math.abs(line.px[i] - x);
      if (d < distance) { distance = d; best = i; }
    }
    return best;
  };

  let at = null;
  const hide = () => {
    at = null;
    layer.classList.add('hidden');
    tip.classList.add('hidden');
  };
  const show = (x) => {
    let snap = null;
    chart.series.forEach((line, s) => {
      const i = shown[s] ? nearest(line, x) : -1;
      if (i >= 0 && (snap === null || Math.abs(line.px[i] - x) < Math.abs(px(snap) - x))) snap = line.x[i];
    });
    if (snap === null) return hide();
    at = px(snap);
    hair.setAttribute('x1', at);
    hair.setAttribute('x2', at);
    layer.classList.remove('hidden');
    tip.classList.remove('hidden');
    tip.replaceChildren();
    const unit = (axis) => axis.unit ? ' ' + axis.unit : '';
    element('div', {}, tip, `${chart.x.label} ${number(snap)}${unit(chart.x)}`.trim());
    const table = element('table', {}, tip);
    chart.series.forEach((line, s) => {
      const i = shown[s] ? nearest(line, at) : -1;
      spots[s].parentNode.classList.toggle('hidden', i < 0);
      if (i < 0) return;
      spots[s].setAttribute('cx', line.px[i]);
      spots[s].setAttribute('cy', py(line.y[i]));
      const row = element('tr', {}, table);
      const head = element('th', {class: groups[s].getAttribute('class').split(' ')[0]}, row);
      element('i', {}, head);
      head.append(line.name);
      element('td', {}, row, number(line.y[i]) + unit(chart.y));
      const away = Math.abs(line.px[i] - at) > 2;
      element('td', {class: 'at'}, row, away ? `at ${number(line.x[i])}` : '');
    });
    for (const marker of chart.markers) {
      if (Math.abs(px(marker.x) - at) < 5) element('p', {}, tip, `${marker.text} (${number(marker.x)})`);
    }
    const box = figure.getBoundingClientRect(), drawing = svg.getBoundingClientRect();
    const scale = drawing.width / svg.viewBox.baseVal.width;
    const middle = drawing.left - box.left + at * scale;
    const beside = middle + 16 + tip.offsetWidth > box.width ? middle - 16 - tip.offsetWidth : middle + 16;
    tip.style.left = `${Math.max(4, beside)}px`;
    tip.style.top = `${drawing.top - box.top + top * scale + 6}px`;
  };

  const pointed = (event) => {
    const drawing = svg.getBoundingClientRect();
    show((event.clientX - drawing.left) * svg.viewBox.baseVal.width / drawing.width);
  };
  hit.addEventListener('pointermove', pointed);
  hit.addEventListener('pointerdown', pointed);
  hit.addEventListener('pointerleave', hide);
  svg.setAttribute('tabindex', '0');
  svg.addEventListener('blur', hide);
  svg.addEventListener('keydown', (event) => {
    const step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (event.key === 'Escape') hide();
    if (!step) return;
    event.preventDefault();
    const places = chart.series.flatMap((line, s) => shown[s] ? line.px.filter((x) => !isNaN(x)) : []).sort((a, b) => a - b);
    const next = at === null ? places[0]
        : step > 0 ? places.find((x) => x > at + 0.01) : places.filter((x) => x < at - 0.01).pop();
    if (next !== undefined) show(next);
  });

  for (const button of figure.querySelectorAll('.legend button')) {
    const s = Number(button.dataset.series);
    button.addEventListener('click', () => {
      shown[s] = !shown[s];
      button.setAttribute('aria-pressed', shown[s]);
      groups[s].classList.toggle('hidden', !shown[s]);
      hide();
    });
  }
}

function sortable(table) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = element('button', {type: 'button'}, null, head.textContent);
    head.replaceChildren(button);
    button.addEventListener('click', () => {
      const numeric = head.classList.contains('number');
      const before = head.getAttribute('aria-sort');
      const down = before ? before === 'ascending' : numeric;
      heads.forEach((other) => other.removeAttribute('aria-sort'));
      head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
      const key = (row) => {
        const cell = row.cells[column];
        return cell.dataset.value !== undefined ? Number(cell.dataset.value) : numeric ? NaN : cell.textContent;
      };
      const rows = [...body.rows].map((row) => [key(row), row]);
      rows.sort(([a], [b]) => {
        if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
        const order = typeof a === 'number' && typeof b === 'number'
            ? a - b : String(a).localeCompare(String(b), 'en', {numeric: true});
        return down ? -order : order;
      });
      body.append(...rows.map(([, row]) => row));
    });
  });
}

document.querySelectorAll('figure[data-chart]').forEach(follow);
document.querySelectorAll('table.sortable').forEach(sortable);
})();
)js";
}

}  // namespace qkv
