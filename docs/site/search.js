// Finds sections as one types; everything it needs is in the page's own folder.
(() => {
  const { MiniSearch, sections } = globalThis;
  const query = document.getElementById('query');
  const results = document.getElementById('results');
  const engine = new MiniSearch({
    fields: ['heading', 'page', 'text'],
    storeFields: ['href', 'page', 'heading', 'text'],
    searchOptions: { boost: { heading: 4, page: 2 }, prefix: true, fuzzy: 0.15, combineWith: 'AND' },
    // Settings are found whole and by their parts.
    tokenize: (text) => text.split(/[^\p{L}\p{N}_-]+/u).flatMap((word) => [word, ...word.split(/[_-]/)]).filter(Boolean),
  });
  engine.addAll(sections);

  function show() {
    const found = query.value.trim() === '' ? [] : engine.search(query.value).slice(0, 12);
    results.replaceChildren(...found.map(itemOf));
    if (query.value.trim() !== '' && found.length === 0) {
      const item = document.createElement('li');
      item.textContent = 'Nothing found.';
      results.append(item);
    }
    results.hidden = query.value.trim() === '';
  }

  function itemOf({ href, page, heading, text }) {
    const item = document.createElement('li');
    const link = document.createElement('a');
    link.href = href;
    const title = document.createElement('strong');
    title.textContent = heading || page;
    const place = document.createElement('span');
    place.textContent = heading === page || heading === '' ? excerpt(text) : `${page}: ${excerpt(text)}`;
    link.append(title, place);
    item.append(link);
    return item;
  }

  function excerpt(text) {
    const word = query.value.trim().split(/\s+/)[0].toLowerCase();
    const at = Math.max(0, text.toLowerCase().indexOf(word) - 40);
    return `${at > 0 ? '… ' : ''}${text.slice(at, at + 120)}${text.length > at + 120 ? ' …' : ''}`;
  }

  function move(step) {
    const links = [...results.querySelectorAll('a')];
    const next = links.indexOf(document.activeElement) + step;
    (next < 0 ? query : (links[Math.min(next, links.length - 1)] ?? query)).focus();
  }

  query.addEventListener('input', show);
  document.addEventListener('keydown', (event) => {
    if (event.key === '/' && document.activeElement !== query) {
      event.preventDefault();
      query.focus();
    } else if (event.key === 'Escape') {
      query.value = '';
      show();
    } else if (event.key === 'ArrowDown' && !results.hidden) {
      event.preventDefault();
      move(1);
    } else if (event.key === 'ArrowUp' && !results.hidden) {
      event.preventDefault();
      move(-1);
    } else if (event.key === 'Enter' && document.activeElement === query) {
      results.querySelector('a')?.click();
    }
  });
  results.addEventListener('click', () => {
    query.value = '';
    show();
  });
})();
