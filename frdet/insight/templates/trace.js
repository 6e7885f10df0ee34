(() => {
  const data = JSON.parse(document.getElementById('trace').textContent);
  const { stages, columns, classes, images, splits, words } = data;
  const ids = columns.id ?? [], last = stages.length - 1;  // the last stage is that of the found objects
  const by = id => document.getElementById(id);
  const counted = number => number.toLocaleString('en');
  const share = (part, whole) => whole ? `${(100 * part / whole).toFixed(1)}%` : '–';
  const sum = numbers => numbers.reduce((a, b) => a + b, 0);
  /** An element with properties, or attributes where the element has no such property; `style` sets CSS. */
  const make = (tag, { style = {}, ...others } = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(others)) name in element ? element[name] = value : element.setAttribute(name, value);
    for (const [name, value] of Object.entries(style)) element.style.setProperty(name, value);
    element.append(...children);
    return element;
  };
  const fate = stage => stage === last ? stages[stage].name : `lost at ${stages[stage].name}`;
  const why = row => {
    if (columns.stage[row] === last && columns.detection_iou?.length) return `IoU ${columns.detection_iou[row]}, score ${columns.detection_score[row]}`;
    const [place, ...numbers] = columns.why[row].split(' ');
    return words[place].replaceAll('\0', () => numbers.shift());
  };
  /** Why a stage loses objects, and its settings, below the line of a tip. */
  const explained = stage => {
    const { about, keys } = stages[stage];
    return [...(about && stage !== last ? [`Lost because ${about}.`] : []), ...keys.map(key => key.join(' = '))].map(line => `\n${line}`).join('');
  };
  const colour = stage => ({ '--c': stages[stage].colour });
  const striped = stage => stage % 14 >= 7 && stage !== last ? 'striped' : '';  // the colours come a second time

  // What is chosen: the groups, a stage or all (null), a group or all (null), and words.
  const chosen = { split: splits[0], stage: null, group: null, search: [] };
  let opened = null;

  // The funnel.
  const choice = (stage, group, tip, options, ...children) => {
    const button = make('button', { type: 'button', 'data-tip': tip, 'aria-pressed': 'false', ...options }, ...children);
    button.choice = [stage, group];
    button.addEventListener('click', () => {
      const isOn = chosen.stage === stage && chosen.group === group;
      [chosen.stage, chosen.group] = isOn ? [null, null] : [stage, group];
      update();
    });
    return button;
  };
  const span = (className, width, ...children) => make('span', { className, style: width ? { width } : {} }, ...children);
  const steps = counts => {
    const total = sum(counts);
    let left = total;
    const rows = stages.map(({ name }, stage) => {
      const number = counts[stage], part = share(number, total), isFound = stage === last;
      if (!isFound) left -= number;
      const bar = isFound ? [span('found', part)] : [span('left', share(left, total)), ...(number ? [span('lost', part)] : [])];
      const tip = `${counted(number)} of ${counted(total)} objects are ${fate(stage)} (${part})${isFound ? '' : `; ${counted(left)} go on`}`;
      return make('li', {}, choice(stage, null, tip + explained(stage), { className: number || isFound ? 'step' : 'step none' },
        span('name', '', isFound ? name : `${stage + 1} ${name}`), span('bar', '', ...bar),
        span('count', '', `${isFound || !number ? '' : '−'}${counted(number)} `, make('small', {}, part))));
    });
    const head = ['stage', `${counted(total)} objects: still on their way, and lost here (striped)`, 'lost'];
    return make('ol', {}, make('li', { className: 'headline' }, ...head.map(text => span('', '', text))), ...rows);
  };
  const bars = groups => make('ol', {}, ...groups.map(([group, name, counts]) => {
    const total = sum(counts), found = counts[last];
    const segments = [...counts.keys()].filter(stage => counts[stage]).map(stage => {
      const number = counts[stage], part = share(number, total);
      const said = `${name}: ${counted(number)} of ${counted(total)} objects are ${fate(stage)} (${part})`;
      const text = number / total < .045 ? '' : stage === last ? part : String(stage + 1);
      const style = { ...colour(stage), flex: `${number} 1 0` };
      return choice(stage, group, said + explained(stage), { className: `segment ${striped(stage)}`, 'aria-label': said, style }, text);
    });
    return make('li', {}, choice(null, group, `${name}: ${counted(total)} objects`, { className: 'name' }, name), span('bar', '', ...segments),
      span('count', '', `${counted(found)} of ${counted(total)} `, make('small', {}, share(found, total))));
  }));
  const draw = () => {
    const { groups, column } = chosen.split;
    by('funnel').classList.toggle('split', column);
    by('funnel').replaceChildren(column ? bars(groups) : steps(groups.length ? groups[0][2] : stages.map(() => 0)));
    by('key').hidden = !column;
    buttons().forEach((button, place) => { button.tabIndex = place ? -1 : 0; });
  };
  // Tab stops once at the funnel, whose arrow keys go on: there may be hundreds of bars.
  const buttons = () => [...by('funnel').querySelectorAll('button')];
  by('funnel').addEventListener('keydown', event => {
    const all = buttons(), at = all.indexOf(event.target), row = event.target.closest('li');
    const place = [...row.querySelectorAll('button')].indexOf(event.target);
    const inRow = other => other && [...other.querySelectorAll('button')].slice(0, place + 1).pop();
    const moves = {
      ArrowRight: () => all[at + 1], ArrowLeft: () => all[at - 1], Home: () => all[0], End: () => all.at(-1),
      ArrowDown: () => inRow(row.nextElementSibling), ArrowUp: () => inRow(row.previousElementSibling),
    };
    if (!(event.key in moves)) return;
    event.preventDefault();
    moves[event.key]()?.focus();
  });
  by('funnel').addEventListener('focusin', event => {
    for (const button of buttons()) button.tabIndex = button === event.target ? 0 : -1;
  });
  by('key').append(...stages.map(({ name }, stage) => make('li', {}, choice(stage, null, fate(stage) + explained(stage), {},
    make('span', { className: `number ${striped(stage)}`, style: colour(stage) }, stage === last ? '✓' : stage + 1), name))));
  by('split').addEventListener('change', event => {
    Object.assign(chosen, { split: splits[event.target.value], group: null });
    draw();
    update();
  });
  for (const button of document.querySelectorAll('.clear')) button.addEventListener('click', () => {
    Object.assign(chosen, { stage: null, group: null, search: [] });
    by('search').value = '';
    update();
  });

  // The table. Only the rows in view are elements.
  const HEIGHT = 32, HEAD = 38, ROOM = 15 * HEIGHT;
  const ranks = texts => {  // keys to sort by
    if (texts.every(text => /^\d{1,15}$/.test(text))) return texts.map(Number);
    const collator = new Intl.Collator('en', { numeric: true }), rank = [];
    [...texts.keys()].sort((a, b) => collator.compare(texts[a], texts[b])).forEach((text, place) => { rank[text] = place; });
    return rank;
  };
  const number = (name, title, width = 110) => ({ title, width, isNumber: true, text: row => columns[name][row] ?? '–', keys: () => columns[name] });
  const text = (name, title, width, texts) => ({
    title, width, text: row => texts[columns[name][row]],
    keys: () => { const rank = ranks(texts); return columns[name].map(place => rank[place]); },
  });
  const TABLE = [
    { title: 'stage', width: 170, text: row => stages[columns.stage[row]].name, keys: () => columns.stage },
    text('class', 'class', 130, classes),
    { title: 'why', width: 430, text: why },
    number('width', 'width', 86), number('height', 'height', 86),
    text('image', 'image', 110, images.map(([id]) => id)), text('image', 'file', 170, images.map(([, file]) => file)),
    { title: 'object', width: 110, text: row => ids[row], keys: () => ranks(ids) },
    number('anchor_iou', 'anchor IoU'), number('proposal_iou', 'proposal IoU', 124), number('own_score', 'own score'),
    number('detection_iou', 'detection IoU', 130), number('detection_score', 'its score'), number('crowding', 'crowding'),
  ];
  const grid = by('rows'), body = grid.querySelector('tbody'), head = grid.querySelector('thead tr');
  const order = [...ids.keys()];
  let shown = order, current = 0;
  const sort = (place, isDown) => {
    const sign = isDown ? -1 : 1, column = TABLE[place];
    column.sorted ??= column.keys();
    const key = Float64Array.from(column.sorted, value => value ?? sign * Infinity);  // what is unknown stands last
    order.sort((a, b) => sign * (key[a] - key[b]) || a - b);
    [...head.children].forEach((cell, other) => {
      if (TABLE[other].keys) cell.ariaSort = other !== place ? 'none' : isDown ? 'descending' : 'ascending';
    });
  };
  head.append(...TABLE.map(({ title, width, isNumber, keys }, place) => {
    const label = make(keys ? 'button' : 'span', keys ? { type: 'button' } : {}, title);
    const cell = make('th', { role: 'columnheader', className: isNumber ? 'n' : '', style: { width: `${width}px` } }, label);
    if (keys) label.addEventListener('click', () => { sort(place, cell.ariaSort === 'ascending'); update(); });
    return cell;
  }));
  grid.style.maxHeight = `${HEAD + ROOM}px`;
  grid.querySelector('table').style.width = `${sum(TABLE.map(({ width }) => width))}px`;
  const line = place => {
    const row = shown[place], stage = columns.stage[row];
    const cells = TABLE.map(({ text, isNumber }) => make('td', { role: 'gridcell', className: isNumber ? 'n' : '', title: text(row) }, text(row)));
    cells[0].prepend(make('span', { className: `dot ${striped(stage)}`, style: colour(stage) }));
    const isCurrent = String(place === current);
    return make('tr', { id: `row${place}`, role: 'row', className: row === opened ? 'open' : '', 'aria-rowindex': place + 2, 'aria-selected': isCurrent }, ...cells);
  };
  const gap = rows => make('tr', { 'aria-hidden': 'true', style: { height: `${rows * HEIGHT}px` } });
  const made = new Map();  // the rows in view by their place; scrolling keeps them
  const render = () => {
    const first = Math.max(0, Math.min(shown.length, Math.floor(grid.scrollTop / HEIGHT)) - 4);
    const end = Math.min(shown.length, first + ROOM / HEIGHT + 8);
    for (const place of made.keys()) if (place < first || place >= end) made.delete(place);
    for (let place = first; place < end; place += 1) if (!made.has(place)) made.set(place, line(place));
    const lines = Array.from({ length: end - first }, (_, at) => made.get(first + at));
    if (!lines.length) lines.push(make('tr', { role: 'row' }, make('td', { role: 'gridcell', colSpan: TABLE.length }, 'No object.')));
    body.replaceChildren(gap(first), ...lines, gap(shown.length - end));
  };
  const moveTo = place => {
    made.get(current)?.setAttribute('aria-selected', 'false');
    current = Math.max(0, Math.min(place, shown.length - 1));
    const top = current * HEIGHT;
    grid.scrollTop = Math.max(Math.min(grid.scrollTop, top), top + HEIGHT + HEAD - grid.clientHeight);
    render();
    made.get(current).setAttribute('aria-selected', 'true');
    grid.setAttribute('aria-activedescendant', `row${current}`);
  };
  grid.addEventListener('scroll', render);
  grid.addEventListener('keydown', event => {
    if (event.target !== grid || !shown.length) return;
    const page = ROOM / HEIGHT - 1;
    const moves = { ArrowDown: current + 1, ArrowUp: current - 1, PageDown: current + page, PageUp: current - page, Home: 0, End: shown.length - 1 };
    if (event.key in moves) moveTo(moves[event.key]);
    else if (event.key === 'Enter') open(shown[current]);
    else return;
    event.preventDefault();
  });
  body.addEventListener('click', event => {
    const element = event.target.closest('tr[id]');
    if (!element) return;
    current = Number(element.id.slice(3));
    open(shown[current]);
  });
  by('search').addEventListener('input', event => {
    chosen.search = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
    update();
  });

  // One object. Its picture is moved there, with what switches its boxes.
  const card = by('object'), empty = [...card.children];
  const figures = [...card.parentElement.querySelectorAll(':scope > figure')];
  const isHere = figure => card.contains(figure);
  let putBack = () => {};
  const quoted = text => /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replace(/'/g, `'"'"'`)}'`;
  const pictureOf = row => {
    const figure = figures[data.pictured.indexOf(row)];
    if (!figure) return make('p', { className: 'hint' }, 'Only some objects of every stage are drawn, and this one is not: --cards N of tools/trace_objects.py draws N of every stage.');
    const place = document.createComment('');
    figure.before(place);
    figure.hidden = false;
    putBack = () => { place.replaceWith(figure); putBack = () => {}; };
    return figure;
  };
  const sentence = row => {
    const stage = columns.stage[row], { name, about, keys } = stages[stage], reason = why(row) || (stage === last ? '' : about);
    const settings = keys.flatMap(([key, value]) => ['; ', make('code', {}, key), ' is ', make('code', {}, value)]);
    return make('p', { className: 'verdict' }, make('b', {}, stage === last ? 'Found' : `Lost at ${name}`), reason ? `: ${reason}` : '', ...settings);
  };
  const numbersOf = row => {
    const at = name => columns[name][row];
    const box = [['width × height, in pixels', `${at('width')} × ${at('height')}`], ['left, top', `${at('left')}, ${at('top')}`]];
    const other = classes[at('other_class')] ?? '';
    const known = data.meanings.filter(([name]) => (at(name) ?? null) !== null)
      .map(([name, meaning]) => [meaning, name === 'other_score' ? `${other} ${at(name)}` : at(name)]);
    return make('dl', {}, ...[...box, ...known].flatMap(([meaning, value]) => [make('dt', {}, meaning), make('dd', {}, value)]));
  };
  const open = row => {
    putBack();
    opened = row;
    const [id, file] = images[columns.image[row]], place = file && file !== id ? `image ${id}, ${file}` : `image ${id}`;
    const button = make('button', { type: 'button' }, 'Close');
    button.addEventListener('click', close);
    card.style.setProperty('--c', stages[columns.stage[row]].colour);
    card.replaceChildren(
      make('div', { className: 'top' }, make('h3', {}, `${classes[columns.class[row]]} ${ids[row]}: ${place}`), button),
      sentence(row),
      make('div', { className: 'sides' }, make('div', {}, pictureOf(row)), numbersOf(row)),
      make('p', {}, 'This shows a training step of the image, with its anchors, proposals and RoIs:'),
      make('pre', { tabIndex: 0 }, data.command + quoted(id)));
    update();
    if (document.activeElement === document.body) button.focus();  // the picture took the focus with it
    card.scrollIntoView({ block: 'nearest' });
  };
  const close = () => {
    putBack();
    opened = null;
    card.style.removeProperty('--c');
    card.replaceChildren(...empty);
    update();
    grid.focus({ preventScroll: true });
  };
  figures.forEach((figure, place) => {
    const caption = figure.querySelector('figcaption').firstChild;
    caption.replaceWith(make('button', { type: 'button' }, caption.textContent.trim()));
    figure.addEventListener('click', () => { if (!isHere(figure)) open(data.pictured[place]); });
  });

  // What is chosen, everywhere.
  const matching = () => {
    const { stage, group, split, search } = chosen, groups = columns[split.column];
    const hits = search.map(word => {
      const ofClass = classes.map(name => name.toLowerCase().includes(word));
      const ofImage = images.map(names => names.join('\n').toLowerCase().includes(word));
      return row => ofClass[columns.class[row]] || ofImage[columns.image[row]] || ids[row].toLowerCase().includes(word);
    });
    return row => (stage === null || columns.stage[row] === stage) && (group === null || groups[row] === group) && hits.every(hit => hit(row));
  };
  const update = () => {
    const matches = matching(), { stage, group, split, search } = chosen, kept = shown[current];
    shown = order.filter(matches);
    current = Math.max(0, shown.indexOf(kept));
    for (const button of document.querySelectorAll('[aria-pressed]')) {
      button.ariaPressed = String((stage ?? group) !== null && button.choice[0] === stage && button.choice[1] === group);
    }
    const said = [
      ...(stage === null ? [] : [fate(stage)]),
      ...(group === null ? [] : [`${split.name} ${split.groups.find(([place]) => place === group)[1]}`]),
      ...(search.length ? [`with ${search.join(' ')}`] : []),
    ];
    const count = `${counted(shown.length)} of ${counted(ids.length)} objects`;
    for (const text of document.querySelectorAll('.chosen')) text.textContent = [count, said.join(', ')].filter(Boolean).join(': ');
    for (const button of document.querySelectorAll('.clear')) button.hidden = !said.length;
    figures.forEach((figure, place) => { if (!isHere(figure)) figure.hidden = !matches(data.pictured[place]); });
    const drawn = data.pictured.filter(matches).length;
    if (figures.length) by('drawn').textContent = `${drawn} of ${figures.length} drawn objects. Press a picture to see all of its object.`;
    grid.setAttribute('aria-rowcount', shown.length + 1);
    made.clear();
    render();
  };
  if (ids.length) sort(0, false);
  draw();
  update();
})();
