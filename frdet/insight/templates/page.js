'use strict';
(() => {
  const root = document.documentElement;
  const button = document.getElementById('theme');
  const wantsDark = matchMedia('(prefers-color-scheme: dark)');
  const isDark = () => (root.dataset.theme || (wantsDark.matches ? 'dark' : 'light')) === 'dark';
  const nameButton = () => { button.textContent = isDark() ? 'Light' : 'Dark'; };
  // Some browsers refuse storage to pages that were opened as files.
  try { root.dataset.theme = localStorage.getItem('frdet-theme') || ''; } catch { }
  button.addEventListener('click', () => {
    root.dataset.theme = isDark() ? 'light' : 'dark';
    try { localStorage.setItem('frdet-theme', root.dataset.theme); } catch { }
    nameButton();
  });
  wantsDark.addEventListener('change', nameButton);
  nameButton();

  const NAME_SIZE = 13;
  const visible = svg => [...svg.querySelectorAll('.mark:not([hidden])')];
  // Names are as large on a small picture as on a large one. Where two would lie on each other, the larger box has its own.
  const placeNames = svg => {
    const scale = svg.viewBox.baseVal.width / svg.clientWidth, size = NAME_SIZE * scale;
    if (!Number.isFinite(scale)) return;
    const area = mark => { const box = mark.firstElementChild; return box.width.baseVal.value * box.height.baseVal.value; };
    const named = visible(svg).filter(mark => mark.querySelector('text')).sort((a, b) => area(b) - area(a));
    const taken = [];
    for (const mark of named) {
      const text = mark.querySelector('text'), rect = mark.firstElementChild;
      text.removeAttribute('hidden');  // what is hidden has no size
      text.setAttribute('font-size', size);
      text.setAttribute('y', Math.max(rect.y.baseVal.value, size));
      text.setAttribute('x', Math.max(0, Math.min(rect.x.baseVal.value, svg.viewBox.baseVal.width - text.getComputedTextLength())));
      const box = text.getBBox();
      const clashes = taken.some(other => box.x < other.x + other.width && other.x < box.x + box.width
        && box.y < other.y + other.height && other.y < box.y + box.height);
      text.toggleAttribute('hidden', clashes);
      if (!clashes) taken.push(box);
    }
  };
  const resized = new ResizeObserver(entries => entries.forEach(entry => placeNames(entry.target)));
  for (const svg of document.querySelectorAll('svg.picture[tabindex]')) {
    placeNames(svg);
    resized.observe(svg);
  }

  for (const panel of document.querySelectorAll('.toggles')) {
    const boxes = [...panel.querySelectorAll('input[type=checkbox]')];
    const slider = panel.querySelector('input[type=range]');
    const pictures = [...panel.parentElement.querySelectorAll('svg.picture[tabindex]')];
    const every = [...panel.querySelectorAll('.every')].map(button => ({
      button, boxes: [...button.closest('fieldset').querySelectorAll('input')],
    }));
    const items = [...panel.parentElement.querySelectorAll('[data-tags], [data-score]')].map(element => ({
      element,
      tags: Object.entries(JSON.parse(element.dataset.tags || '{}')),
      score: 'score' in element.dataset ? Number(element.dataset.score) : Infinity,
    }));
    const figures = [...panel.parentElement.querySelectorAll('figure[data-filtered]')];
    const update = () => {
      const off = new Set(boxes.filter(box => !box.checked).map(box => JSON.stringify([box.dataset.key, box.value])));
      const least = slider ? Number(slider.value) : 0;
      if (slider) slider.parentElement.querySelector('output').textContent = slider.value;
      let shown = 0;
      const counts = {};  // of each kind: [shown, all]
      for (const { element, tags, score } of items) {
        const on = score >= least && tags.every(tag => !off.has(JSON.stringify(tag)));
        element.toggleAttribute('hidden', !on);
        const count = counts[element.matches('.mark') ? 'boxes' : element.matches('tr') ? 'rows' : 'pictures'] ??= [0, 0];
        count[0] += on;
        count[1] += 1;
        shown += on;
      }
      for (const figure of figures) figure.hidden = shown < items.length && !figure.querySelector('.mark:not([hidden])');
      pictures.forEach(placeNames);
      for (const { button, boxes } of every) button.textContent = boxes.some(box => box.checked) ? 'none' : 'all';
      const said = Object.entries(counts).map(([kind, [on, all]]) => `${on} of ${all} ${kind}`);
      panel.querySelector('.shown').textContent = `Shown: ${said.join(', ')}`;
    };
    for (const { button, boxes } of every) button.addEventListener('click', () => {
      const on = !boxes.some(box => box.checked);
      for (const box of boxes) box.checked = on;
      update();
    });
    panel.addEventListener('input', update);
    update();
  }

  const tip = document.getElementById('tip');
  let current = null;
  const show = (element, x, y) => {
    if (current) current.classList.remove('current');
    current = element;
    tip.hidden = !element;
    if (!element) return;
    element.classList.add('current');
    tip.textContent = element.dataset.tip;
    tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - tip.offsetWidth - 4))}px`;
    tip.style.top = `${y + 14 + tip.offsetHeight > innerHeight ? Math.max(4, y - tip.offsetHeight - 10) : y + 14}px`;
  };
  const showAt = element => {
    const box = element.getBoundingClientRect();
    show(element, box.left, box.bottom - 10);
  };
  // Boxes lie on top of each other: of those around the pointer the smallest is meant.
  const smallest = (svg, x, y) => {
    let best = null, least = Infinity;
    for (const mark of visible(svg)) {
      const box = mark.firstElementChild.getBoundingClientRect();
      const area = box.width * box.height;
      if (x >= box.left && x <= box.right && y >= box.top && y <= box.bottom && area < least) [best, least] = [mark, area];
    }
    return best;
  };
  for (const svg of document.querySelectorAll('svg.picture[tabindex]')) {
    const point = event => show(smallest(svg, event.clientX, event.clientY), event.clientX, event.clientY);
    svg.addEventListener('pointermove', point);
    svg.addEventListener('pointerdown', point);
    svg.addEventListener('pointerleave', () => show(null));
    svg.addEventListener('blur', () => show(null));
    svg.addEventListener('keydown', event => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const marks = visible(svg);
      if (!step || !marks.length) return;
      event.preventDefault();
      const at = marks.indexOf(current);
      showAt(marks[at < 0 ? (step > 0 ? 0 : marks.length - 1) : (at + step + marks.length) % marks.length]);
    });
  }
  const tipped = event => event.target.closest?.('li[data-tip], button[data-tip]');
  document.addEventListener('pointerover', event => { if (tipped(event)) show(tipped(event), event.clientX, event.clientY); });
  document.addEventListener('focusin', event => { if (tipped(event)?.matches(':focus-visible')) showAt(tipped(event)); });
  for (const name of ['pointerout', 'focusout']) document.addEventListener(name, event => { if (tipped(event)) show(null); });
  document.addEventListener('keydown', event => { if (event.key === 'Escape') show(null); });
})();
