"use strict";
// The list of features: search, filters and sorting, kept in the address so that "back" finds the same list again.
// Without scripts the features that have pages are listed as they are.
(() => {
  const { kinds, features } = JSON.parse(document.getElementById("data").textContent);
  const form = document.getElementById("filters");
  const table = document.getElementById("list");
  const body = table.tBodies[0];
  const more = document.getElementById("more");
  const count = document.getElementById("count");
  const STEP = 200;
  let shown = STEP;
  let sort = { key: "density", down: true };

  const percent = (share) => (share >= 0.995 ? "100" : String(Number((100 * share).toPrecision(2)))) + "%";
  const number = (value) => (value === null ? "–" : String(Number(value.toPrecision(3))));
  const shares = (feature, kind) => feature.labels[kinds.indexOf(kind)] || [];
  const values = {
    feature: (f) => f.feature, density: (f) => f.density, strongest: (f) => f.strongest,
    effect: (f) => (f.effect === null ? -Infinity : f.effect),
  };
  const valueOf = (f, key) => {
    if (values[key]) return values[key](f);
    const own = shares(f, key.slice(3))[0];
    return own ? own[1] : -1;
  };

  const matches = (f, wanted) => {
    const q = (wanted.get("q") || "").trim().toLowerCase();
    if (q && String(f.feature) !== q && !f.labels.some((kind) => kind.some(([label]) => label.toLowerCase().includes(q)))) return false;
    const density = wanted.get("density");
    if (density === "alive" && !f.density) return false;
    if (density === "dead" && f.density) return false;
    if (density && density.includes("-")) {
      const [low, high] = density.split("-").map(Number);
      if (!f.density || f.density < low || f.density >= high) return false;
    }
    if (wanted.get("page") && !f.page) return false;
    return kinds.every((kind) => {
      const name = wanted.get("is-" + kind);
      return !name || shares(f, kind).some(([label, share]) => label === name && share >= 0.1);
    });
  };

  const cell = (tag, text, name) => {
    const made = document.createElement(tag);
    if (name) made.dataset.name = name;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const line = (f) => {
    const row = document.createElement("tr");
    const first = cell("th");
    first.scope = "row";
    if (f.page) {
      const link = cell("a", f.feature);
      link.href = "features/" + f.feature + ".html";
      first.append(link);
    } else first.textContent = f.feature;
    row.append(first);
    for (const [name, text] of [["active", percent(f.density)], ["largest", number(f.strongest)]]) {
      const own = cell("td", text, name);
      own.className = "num";
      row.append(own);
    }
    kinds.forEach((kind) => {
      const own = cell("td", undefined, kind);
      shares(f, kind).slice(0, 2).forEach(([label, share], i) => {
        own.append((i ? ", " : "") + label + " ", cell("small", percent(share)));
      });
      if (!own.childNodes.length) own.className = "empty";
      row.append(own);
    });
    const effect = cell("td", number(f.effect), "steers");
    effect.className = f.effect === null ? "num empty" : "num";
    row.append(effect);
    return row;
  };

  const draw = () => {
    const wanted = new FormData(form);
    const found = features.filter((f) => matches(f, wanted));
    const sign = sort.down ? -1 : 1;
    found.sort((a, b) => sign * (valueOf(a, sort.key) - valueOf(b, sort.key)) || a.feature - b.feature);
    body.replaceChildren(...found.slice(0, shown).map(line));
    more.hidden = found.length <= shown;
    count.textContent = found.length + " of " + features.length + " features, " + found.filter((f) => f.page).length + " with a page";
    table.querySelectorAll("th[data-key]").forEach((head) => {
      if (head.dataset.key === sort.key) head.setAttribute("aria-sort", sort.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
  };
  const keep = () => {
    const state = new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
    state.set("sort", (sort.down ? "-" : "") + sort.key);
    history.replaceState(null, "", "#" + state);
  };
  const restore = () => {
    const state = new URLSearchParams(location.hash.slice(1));
    for (const field of form.elements) if (field.name) field.value = state.get(field.name) || "";
    const key = state.get("sort") || "-density";
    sort = { key: key.replace(/^-/, ""), down: key.startsWith("-") };
    shown = STEP;
    draw();
  };

  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => { shown = STEP; draw(); keep(); });
  form.addEventListener("reset", () => setTimeout(() => { shown = STEP; draw(); keep(); }));
  more.addEventListener("click", () => { shown += STEP; draw(); });
  table.querySelectorAll("th[data-key]").forEach((head) => {
    head.querySelector("button").addEventListener("click", () => {
      const key = head.dataset.key;
      sort = { key, down: sort.key === key ? !sort.down : key !== "feature" };
      draw();
      keep();
    });
  });
  addEventListener("hashchange", restore);
  restore();
})();
