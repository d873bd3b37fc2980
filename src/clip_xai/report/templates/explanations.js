"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const tables = { false: bytes(data.tables.sequential), true: bytes(data.tables.diverging) };
  const state = { image: 0, kept: null, shown: null, method: null };
  const photo = $("photo");

  // ---- text without markup -------------------------------------------------------------------------------------
  const element = (tag, text, className) => {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    if (className) node.className = className;
    return node;
  };
  const counted = (count, one, many) => `${count} ${count === 1 ? one : many}`;
  const number = (value) => (value === 0 ? "0" : String(Number(value.toPrecision(3)))).replace(/-/g, "−");

  // ---- raw values ----------------------------------------------------------------------------------------------
  // Each row is stored as 16-bit integers and the size of its largest absolute value; -32768 stands for "not read".
  const rowValues = (explanation, row) => {
    explanation.cache ??= [];
    if (!explanation.cache[row]) {
      const packed = new Int16Array(bytes(explanation.data[row]).buffer);
      explanation.cache[row] = Float64Array.from(packed, (v) => (v === -32768 ? NaN : (v / 32767) * explanation.peaks[row]));
    }
    return explanation.cache[row];
  };
  const image = () => data.images[state.image];
  const rowOf = (explanation, item) => explanation.items.indexOf(item);
  const pictures = (entry) => entry.explanations.filter((explanation) => explanation.kind === "image");
  const current = () => pictures(image()).find((explanation) => explanation.method === state.method);
  const scaleOf = (explanation, row) => ($("scale").value === "shared" ? explanation.shared : explanation.own)[row];

  // The same bilinear rule as Geometry.place: cell centres inside the box, edge cells extended to the box's edge.
  const weights = (pixels, start, end, cells) => {
    const out = [];
    for (let p = 0; p < pixels; p++) {
      const at = (p + 0.5) / pixels;
      const position = Math.min(Math.max(((at - start) / (end - start)) * cells - 0.5, 0), cells - 1);
      const lower = Math.floor(position);
      out.push({ inside: at >= start && at <= end, lower, upper: Math.min(lower + 1, cells - 1), share: position - lower });
    }
    return out;
  };
  const mixed = (values, columns, y, x) => {
    const at = (r, c) => values[r * columns + c];
    const top = at(y.lower, x.lower) * (1 - x.share) + at(y.lower, x.upper) * x.share;
    const bottom = at(y.upper, x.lower) * (1 - x.share) + at(y.upper, x.upper) * x.share;
    return top * (1 - y.share) + bottom * y.share;
  };
  const tint = (value, scale, opacity) => {
    const flat = !(scale.high > scale.low);
    const position = flat ? (scale.signed ? 0.5 : 0) : Math.min(Math.max((value - scale.low) / (scale.high - scale.low), 0), 1);
    const strength = (scale.signed ? Math.abs(2 * position - 1) : position) ** data.exponent;
    const index = 3 * Math.round(position * 255);
    const table = tables[scale.signed];
    return [table[index], table[index + 1], table[index + 2], strength * opacity * 255];
  };

  // ---- drawing -------------------------------------------------------------------------------------------------
  const heatPixels = (width, height, entry, explanation, row, opacity) => {
    const pixels = new ImageData(width, height);
    const [left, top, right, bottom] = entry.box;
    const [rows, columns] = explanation.grid;
    const xs = weights(width, left, right, columns);
    const ys = weights(height, top, bottom, rows);
    const values = rowValues(explanation, row);
    const scale = scaleOf(explanation, row);
    const period = Math.max(5, Math.round(width / 64));
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const seen = ys[y].inside && xs[x].inside;
        const stripe = (x + y) % period < Math.max(1, period / 5);
        const colour = seen ? tint(mixed(values, columns, ys[y], xs[x]), scale, opacity) : stripe ? [225, 225, 225, 215] : [118, 121, 127, 205];
        pixels.data.set(colour, 4 * (y * width + x));
      }
    }
    return pixels;
  };
  const sized = (canvas, width, entry) => {
    canvas.width = width;
    canvas.height = Math.max(1, Math.round((width * entry.height) / entry.width));
    return canvas.getContext("2d");
  };
  const drawTile = (canvas, entry, explanation, row) => {
    const pen = sized(canvas, 200, entry);
    pen.drawImage(photo, 0, 0, canvas.width, canvas.height);
    const layer = document.createElement("canvas");
    layer.width = canvas.width;
    layer.height = canvas.height;
    layer.getContext("2d").putImageData(heatPixels(canvas.width, canvas.height, entry, explanation, row, data.opacity), 0, 0);
    pen.drawImage(layer, 0, 0);
    if (!$("lesion").checked || !entry.outline) return;
    const path = new Path2D();
    path.addPath(new Path2D(entry.outline), new DOMMatrix([canvas.width, 0, 0, canvas.height, 0, 0]));
    for (const [ink, width] of [["rgb(15 15 20 / .85)", 3.5], ["#fff", 1.5]]) {
      pen.strokeStyle = ink;
      pen.lineWidth = width;
      pen.stroke(path);
    }
  };
  const drawLegend = (entry, scale) => {
    const canvas = $("bar");
    const pen = canvas.getContext("2d");
    pen.fillStyle = `rgb(${entry.mean.join(" ")})`;
    pen.fillRect(0, 0, canvas.width, canvas.height);
    const opacity = $("opacity").value / 100;
    for (let x = 0; x < canvas.width; x++) {
      const [r, g, b, a] = tint(scale.low + ((scale.high - scale.low) * (x + 0.5)) / canvas.width, scale, opacity);
      pen.fillStyle = `rgb(${r} ${g} ${b} / ${a / 255})`;
      pen.fillRect(x, 0, 1, canvas.height);
    }
    [$("low").textContent, $("high").textContent] = scale.ends;
    $("scale-text").textContent = scale.text;
  };

  // ---- one photograph ------------------------------------------------------------------------------------------
  const label = (entry, item) => entry.items[item].short;
  const wordButton = (entry, item, text) => {
    const button = element("button", text, "word");
    const { score, score_name: name, score_text: title } = entry.items[item];
    button.type = "button";
    button.dataset.item = item;
    button.title = title;
    if (name === "log-probability" && entry.items[item].span) button.style.setProperty("--sure", (0.06 + 0.3 * Math.exp(Math.min(score, 0))).toFixed(3));
    button.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && show(item));
    button.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && show(state.kept));
    button.addEventListener("focus", () => show(item));
    button.addEventListener("blur", () => show(state.kept));
    button.addEventListener("click", () => keep(item));
    return button;
  };
  const fillCaption = (entry) => {
    const words = entry.items.map((item, index) => ({ ...item, index })).filter((item) => item.span).sort((a, b) => a.span[0] - b.span[0]);
    const parts = [];
    let cursor = 0;
    for (const word of words) {
      parts.push(document.createTextNode(entry.letters.slice(cursor, word.span[0]).join("")), wordButton(entry, word.index, entry.letters.slice(...word.span).join("")));
      cursor = word.span[1];
    }
    parts.push(document.createTextNode(entry.letters.slice(cursor).join("")));
    $("caption").replaceChildren(...parts);
    const wholes = entry.items.map((item, index) => ({ item, index })).filter(({ item }) => !item.span);
    $("wholes").classList.toggle("many", wholes.length > 6);
    $("wholes").replaceChildren(...wholes.map(({ index }) => wordButton(entry, index, label(entry, index))));
    $("caption-title").textContent = entry.caption === null ? "Explained texts" : "Generated caption";
    $("caption").hidden = entry.caption === null;
    $("sure-legend").hidden = !entry.items.some((item) => item.span && item.score_name === "log-probability");
  };
  // The words that a word follows from; a click opens the map of one.
  const links = (entry, chain) => chain.map(({ item, text, share }) => {
    const link = element("span", undefined, "link");
    link.append(item === null ? element("b", text) : wordButton(entry, item, text), document.createTextNode(` ${share}`));
    return link;
  });
  // Which words the photograph decided, and which follow from the words before them.
  const fillLedger = (entry) => {
    $("ledger").hidden = !entry.ledger;
    if (!entry.ledger) return;
    const row = (cells, tag) => { const line = element("tr"); line.append(...cells.map((cell, place) => element(place ? tag : "th", cell))); return line; };
    $("ledger-words").replaceChildren(...entry.ledger.words.map(({ item, kind, cells, chain }) => {
      const line = element("li", undefined, kind);
      line.append(item === null ? element("b", cells[0]) : wordButton(entry, item, cells[0]));
      line.append(element("span", chain.length ? "follows from" : cells[1]), ...links(entry, chain));
      return line;
    }));
    $("ledger-head").replaceChildren(row(entry.ledger.head, "th"));
    $("ledger-rows").replaceChildren(...entry.ledger.words.map(({ cells }) => row(cells, "td")));
    $("ledger-note").textContent = entry.ledger.note;
  };
  const fillPairs = (list, pairs) => list.replaceChildren(...Object.entries(pairs).flatMap(([key, value]) => [element("dt", key), element("dd", value)]));
  const fillMethods = (entry) => {
    const groups = new Map();
    for (const explanation of pictures(entry)) {
      const button = element("button", explanation.title);
      button.type = "button";
      button.setAttribute("role", "radio");
      button.setAttribute("aria-checked", String(explanation.method === state.method));
      button.addEventListener("click", () => choose(explanation.method));
      if (!groups.has(explanation.group)) groups.set(explanation.group, []);
      groups.get(explanation.group).push(button);
    }
    // A few methods need no headings.
    const many = pictures(entry).length > 8;
    $("methods").replaceChildren(...[...groups].flatMap(([group, buttons]) => {
      if (!many) return buttons;
      const [line, inner] = [element("div", undefined, "group"), element("div")];
      inner.append(...buttons);
      line.append(element("span", group), inner);
      return [line];
    }));
  };
  // The photographs that a search leaves, in the order of the list.
  const neighbour = (by) => {
    const seen = [...$("list").querySelectorAll("li:not([hidden]) button")].map((button) => Number(button.dataset.image));
    return seen[seen.indexOf(state.image) + by];
  };
  const fillImage = () => {
    const entry = image();
    photo.src = entry.photo;
    photo.alt = ""; // the same photograph again, under the heat, which has words of its own
    $("original").src = entry.photo;
    $("original").alt = `Photograph ${entry.name}`;
    $("pictures").style.setProperty("--tall", Math.min(1, entry.width / entry.height));
    $("place").textContent = `${state.image + 1} of ${data.images.length}`;
    for (const [id, by] of [["previous", -1], ["next", 1]]) $(id).disabled = neighbour(by) === undefined;
    $("name").textContent = entry.name;
    $("facts").textContent = Object.entries(entry.facts).map(([key, value]) => `${key}: ${value}`).join("   ·   ");
    $("warning").textContent = entry.warning;
    $("warning").hidden = !entry.warning;
    fillCaption(entry);
    fillLedger(entry);
    $("references").replaceChildren(...entry.references.map((text) => element("p", text, "reference")));
    $("reference-sheet").hidden = entry.references.length === 0;
    $("left-out").hidden = !entry.left_out.length;
    $("left-out").open = entry.left_out.length <= 2;
    $("left-out").querySelector("summary").textContent = counted(entry.left_out.length, "method left out", "methods left out");
    $("left-out").querySelector("ul").replaceChildren(...entry.left_out.map((reason) => element("li", reason)));
    fillPairs($("measurements"), entry.measurements);
    $("measurement-sheet").hidden = Object.keys(entry.measurements).length === 0;
    $("measured").open = Object.keys(entry.measurements).length <= 20; // of many, the table below says more
    $("marked").textContent = $("marked-measured").textContent = entry.truth.join(" ");
    $("marked-outline").textContent = entry.truth[0][0].toUpperCase() + entry.truth[0].slice(1) + " outline";
    $("lesion-control").hidden = $("key-lesion").hidden = !entry.outline;
    const [left, top, right, bottom] = entry.box;
    $("key-unseen").hidden = left <= 0.002 && top <= 0.002 && right >= 0.998 && bottom >= 0.998;
    for (const path of $("outline").children) path.setAttribute("d", entry.outline ?? "");
    for (const button of $("list").querySelectorAll("button")) button.setAttribute("aria-current", String(Number(button.dataset.image) === state.image));
  };

  // ---- one word ------------------------------------------------------------------------------------------------
  const paint = () => {
    const entry = image();
    const explanation = current();
    const row = explanation && state.shown !== null ? rowOf(explanation, state.shown) : -1;
    const pen = sized($("heat"), Math.min(640, Math.max(320, entry.width)), entry);
    $("legend").style.visibility = row < 0 ? "hidden" : "visible";
    if (row >= 0) {
      pen.putImageData(heatPixels($("heat").width, $("heat").height, entry, explanation, row, $("opacity").value / 100), 0, 0);
      drawLegend(entry, scaleOf(explanation, row));
    } else {
      $("scale-text").textContent = explanation && state.shown !== null ? `${explanation.title} says nothing about this text.` : "";
    }
    $("outline").style.display = $("lesion").checked ? "" : "none";
  };
  const verdictOf = (entry, explanation, item) => entry.verdicts[explanation?.method]?.[item];
  const judged = (entry, explanation, item) => {
    const verdict = verdictOf(entry, explanation, item);
    return verdict ? (verdict.holds ? "evidence" : "no evidence") : "";
  };
  const describe = () => {
    const entry = image();
    const explanation = current();
    const none = state.shown === null;
    $("shown").textContent = none ? "The photograph alone" : label(entry, state.shown);
    $("shown").classList.toggle("long", $("shown").textContent.length > 80);
    $("score").textContent = none ? "" : entry.items[state.shown].score_text;
    $("context").textContent = none ? "" : entry.items[state.shown].context;
    $("certain").textContent = none ? "" : entry.items[state.shown].note;
    const reading = explanation?.reading ?? "";
    $("reading").textContent = !explanation || reading.startsWith(explanation.title) ? reading : `${explanation.title}. ${reading}`;
    $("evidence").textContent = explanation?.evidence ?? "";
    const chain = none ? [] : entry.items[state.shown].chain;
    $("chain").hidden = !chain.length;
    $("chain").replaceChildren(element("span", "What the words before bring comes from"), ...links(entry, chain), element("span", "and, through them, from the places on their maps."));
    const rests = none || !explanation ? null : entry.items[state.shown].rests;
    $("rests").textContent = rests?.text ?? "";
    $("rests").hidden = !rests;
    $("rests").dataset.kind = rests?.kind ?? "";
    const verdict = none ? undefined : verdictOf(entry, explanation, state.shown);
    const unmeasured = !none && !verdict && explanation && explanation.kind !== "text" && Object.keys(entry.verdicts).length > 0;
    $("verdict").textContent = verdict?.text ?? (unmeasured ? "Evidence on this map was not measured; evidence=words measures single words, too." : "");
    $("verdict").hidden = !verdict && !unmeasured;
    $("verdict-details").hidden = !verdict;
    $("verdict").classList.toggle("holds", Boolean(verdict?.holds));
    $("verdict").classList.toggle("unmeasured", !verdict);
    $("verdict-rows").replaceChildren(...(verdict?.rows ?? []).map(([name, value]) => {
      const line = element("tr");
      const head = element("th", name);
      head.scope = "row";
      line.append(head, element("td", value));
      return line;
    }));
    $("map-title").textContent = explanation && !none ? `${explanation.title}, over the photograph` : "";
    $("heat").setAttribute("aria-label", explanation && !none ? `Heat of ${explanation.title} for ${label(entry, state.shown)}` : `Photograph ${entry.name}`);
    $("notes").replaceChildren(...(explanation ? explanation.notes : []).map((text) => element("p", text, "note warning")));
    const drawn = none ? undefined : entry.curves[state.shown];
    $("curves-sheet").hidden = !drawn;
    $("curves").src = drawn?.picture ?? "data:,";
    $("curves").alt = drawn ? `Insertion and deletion curves for ${label(entry, state.shown)}` : "";
    $("curves-text").textContent = drawn?.text ?? "";
    fillPairs($("settings"), explanation ? explanation.settings : {});
  };
  const shadeText = () => {
    const found = image().explanations.filter((candidate) => {
      const row = candidate.kind === "text" ? rowOf(candidate, state.shown) : -1;
      return row >= 0 && rowValues(candidate, row).some((value) => !Number.isNaN(value));
    });
    $("text-sheet").hidden = !found.length;
    if (!found.length) return;
    const { span, short } = image().items[state.shown];
    $("text-title").textContent = span ? `The text behind “${short}”` : "The words of what is shown";
    $("texts").replaceChildren(...found.flatMap(shadedText));
  };
  // The legend of shaded words: the colours from one end of the scale to the other, with the values that they stand for.
  const ramp = (scale) => {
    const line = element("div", undefined, "ramp quiet num");
    const colours = Array.from({ length: 17 }, (_, step) => tint(scale.low + ((scale.high - scale.low) * step) / 16, scale, 1));
    const bar = element("i");
    bar.style.background = `linear-gradient(to right, ${colours.map(([r, g, b]) => `rgb(${r} ${g} ${b})`).join(", ")})`;
    const [low, high] = scale.ends;
    line.append(element("span", `${low}, lowered the score`), bar, element("span", `${high}, raised it`));
    return high ? line : element("p", low, "quiet num");
  };
  // Relative luminance (WCAG 2.1): at 0.179 black and white stand out alike, by 4.58 to 1.
  const luminance = (...colour) => {
    const [r, g, b] = colour.map((c) => (c <= 10 ? c / 3294.6 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const shadedText = (explanation) => {
    const row = rowOf(explanation, state.shown);
    const [values, scale] = [rowValues(explanation, row), explanation.own[row]];
    const tokens = element("p", undefined, "tokens");
    tokens.append(...explanation.tokens[row].flatMap((token, index) => {
      if (Number.isNaN(values[index])) return [];
      const [r, g, b] = tint(values[index], scale, 1);
      const node = element("span", token.trim() || "␣");
      node.style.background = `rgb(${r} ${g} ${b})`;
      node.style.color = luminance(r, g, b) > 0.179 ? "#000" : "#fff";
      node.title = number(values[index]);
      return [node, document.createTextNode(" ")];
    }));
    return [element("h4", explanation.title), tokens, ramp(scale), element("p", `${scale.text} ${explanation.notes.join(" ")}`, "quiet num")];
  };
  const tile = (entry, explanation, row, title, subtitle, pressed, act) => {
    const button = element("button", undefined, "tile");
    const canvas = element("canvas");
    button.type = "button";
    button.setAttribute("aria-pressed", String(pressed));
    button.append(canvas, element("b", title), element("span", subtitle, "quiet num"));
    button.addEventListener("click", act);
    drawTile(canvas, entry, explanation, row);
    return button;
  };
  // The words of a text, each with the places that it goes together with.
  const fillInteractions = () => {
    const entry = image();
    const explanation = entry.explanations.find((candidate) => candidate.interactions.length && rowOf(candidate, state.shown) >= 0);
    $("pair-sheet").hidden = !explanation;
    if (!explanation) return;
    const found = explanation.interactions[rowOf(explanation, state.shown)];
    $("pair-title").textContent = `Which word goes with which place: ${explanation.title}`;
    const faint = (row) => found.peaks[row] < 0.15 * Math.max(...found.peaks);
    const drawn = found.words.map((word, row) => ({ word, row })).filter(({ row }) => !faint(row));
    $("pair").replaceChildren(...drawn.map(({ word, row }) => tile(entry, found, row, word, "", false, () => choose(explanation.method))));
    const others = found.words.filter((_, row) => faint(row)).join(" ");
    $("pair-scale").textContent = `One scale for all words. ${found.own[0]?.text ?? ""} Green: together they raise the score.${others && ` Too faint to draw: ${others}`}`;
  };
  const fillCompare = () => {
    const entry = image();
    const shown = state.shown === null ? [] : pictures(entry).filter((explanation) => rowOf(explanation, state.shown) >= 0);
    $("compare-sheet").hidden = shown.length < 2;
    $("compare").replaceChildren(...(shown.length < 2 ? [] : shown).map((explanation) => {
      const row = rowOf(explanation, state.shown);
      const ends = [scaleOf(explanation, row).ends.join(" … "), judged(entry, explanation, state.shown)].filter(Boolean).join(" · ");
      return tile(entry, explanation, row, explanation.title, ends, explanation.method === state.method, () => choose(explanation.method));
    }));
  };
  const fillContact = () => {
    const entry = image();
    const explanation = current();
    $("contact-sheet").hidden = !explanation || explanation.agnostic;
    if ($("contact-sheet").hidden) return;
    const scaled = $("scale").value === "shared" ? "on one scale" : "each on a scale of its own: a strong colour need not be a large value";
    $("contact-title").textContent = `Every word and text by ${explanation.title}, ${scaled}`;
    $("contact").replaceChildren(...explanation.items.map((item, row) => {
      const ends = [scaleOf(explanation, row).ends.join(" … "), judged(entry, explanation, item)].filter(Boolean).join(" · ");
      return tile(entry, explanation, row, label(entry, item), ends, item === state.kept, () => { keep(item, true); $("stage").scrollIntoView({ block: "nearest" }); });
    }));
  };

  // ---- what the reader does ------------------------------------------------------------------------------------
  const mark = () => {
    for (const button of document.querySelectorAll(".word")) {
      const item = Number(button.dataset.item);
      button.classList.toggle("shown", item === state.shown);
      button.classList.toggle("kept", item === state.kept);
      button.setAttribute("aria-pressed", String(item === state.kept));
    }
  };
  const show = (item) => {
    if (state.shown === item) return;
    state.shown = item;
    mark(); paint(); describe(); shadeText(); fillInteractions(); fillCompare();
  };
  const keep = (item, always) => {
    state.kept = state.kept === item && !always ? null : item;
    state.shown = state.kept === null ? item : state.kept;
    refresh();
  };
  const choose = (method) => { state.method = method; refresh(); };
  const refresh = () => {
    // What is filled anew takes the keyboard's focus with it: it goes to what now stands in its place.
    const list = document.activeElement.closest("#methods, #compare, #contact, #pair");
    const place = list ? [...list.querySelectorAll("button")].indexOf(document.activeElement) : -1;
    mark(); fillMethods(image()); paint(); describe(); shadeText(); fillInteractions(); fillCompare(); fillContact(); writeAddress();
    if (place >= 0) list.querySelectorAll("button")[place]?.focus({ preventScroll: true });
  };
  const open = (index, item) => {
    state.image = index;
    const entry = image();
    const methods = pictures(entry).map((explanation) => explanation.method);
    if (!methods.includes(state.method)) state.method = methods.includes(data.opening.method) ? data.opening.method : methods[0] ?? null;
    state.kept = state.shown = item === undefined ? entry.first : item;
    fillImage();
    (photo.decode ? photo.decode().catch(() => undefined) : Promise.resolve()).then(() => {
      refresh();
      document.documentElement.dataset.opened = "";
    });
  };
  // Scrolls the list alone: on a narrow screen it stands at the end of the page, which must not jump there.
  const reveal = () => {
    const [row, side] = [$("list").children[state.image], document.querySelector(".side")];
    if (getComputedStyle(side).overflowY === "auto") side.scrollTop = row.offsetTop - side.clientHeight / 2;
    $("list").scrollLeft = row.offsetLeft - $("list").clientWidth / 2;
  };
  const step = (by) => {
    const next = neighbour(by);
    if (next !== undefined) { open(next); reveal(); }
  };
  const stepWord = (by) => {
    const order = [...document.querySelectorAll(".word")].map((button) => Number(button.dataset.item));
    if (order.length) keep(order[(order.indexOf(state.kept) + by + order.length) % order.length], true);
  };

  // ---- addresses: #image=3&word=5&method=gradeclip (counted from 1) ---------------------------------------------
  const writeAddress = () => {
    const word = state.kept === null ? "" : `&word=${state.kept + 1}`;
    const address = `#image=${state.image + 1}${word}${state.method ? `&method=${encodeURIComponent(state.method)}` : ""}`;
    if (location.hash !== address) location.replace(address);
  };
  const readAddress = () => {
    const asked = new URLSearchParams(location.hash.slice(1));
    const index = Math.min(Math.max((Number.parseInt(asked.get("image"), 10) || 1) - 1, 0), data.images.length - 1);
    const item = Number.parseInt(asked.get("word"), 10) - 1;
    state.method = asked.get("method") ?? state.method;
    return [index, data.images[index].items[item] ? item : asked.has("image") && !asked.has("word") && asked.has("method") ? null : undefined];
  };

  // ---- start ---------------------------------------------------------------------------------------------------
  // Scores of one kind are named once.
  const scores = (items) => items.map((item, index) => (index && item.score_name === items[0].score_name ? number(item.score) : item.score_text)).join(", ");
  const fillList = () => {
    $("list").replaceChildren(...data.images.map((entry, index) => {
      const row = element("li");
      const button = element("button");
      const picture = element("img");
      const text = element("span");
      picture.src = entry.thumb;
      picture.alt = "";
      const name = element("b");
      // A long file name breaks behind its own separators.
      name.append(...entry.name.split(/(?<=[_.-])/).flatMap((part) => [part, element("wbr")]));
      text.append(name, element("span", entry.caption ?? scores(entry.items)));
      button.type = "button";
      button.dataset.image = index;
      button.append(picture, text);
      button.addEventListener("click", () => open(index));
      row.append(button);
      return row;
    }));
  };
  const photographs = (count) => counted(count, "photograph", "photographs");
  const filter = () => {
    const wanted = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    data.images.forEach((entry, index) => {
      const text = [entry.name, entry.caption ?? "", ...entry.references, ...Object.values(entry.facts)].join(" ").toLowerCase();
      const match = wanted.every((word) => text.includes(word));
      $("list").children[index].hidden = !match;
      count += match;
    });
    const all = data.images.length;
    $("count").textContent = count === all ? photographs(all) : `${count} of ${photographs(all)}`;
    for (const [id, by] of [["previous", -1], ["next", 1]]) $(id).disabled = neighbour(by) === undefined;
  };
  $("search").addEventListener("input", filter);
  $("opening").textContent = data.opening.text;
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  $("opacity").addEventListener("input", paint);
  $("lesion").addEventListener("change", refresh);
  $("scale").addEventListener("change", refresh);
  $("stage").addEventListener("pointermove", (event) => {
    const explanation = current();
    const row = explanation && state.shown !== null ? rowOf(explanation, state.shown) : -1;
    if (row < 0) return;
    const frame = $("stage").getBoundingClientRect();
    const [left, top, right, bottom] = image().box;
    const [rows, columns] = explanation.grid;
    const place = (at, start, end, cells) => {
      const position = Math.min(Math.max(((at - start) / (end - start)) * cells - 0.5, 0), cells - 1);
      const lower = Math.floor(position);
      return { inside: at >= start && at <= end, lower, upper: Math.min(lower + 1, cells - 1), share: position - lower };
    };
    const x = place((event.clientX - frame.left) / frame.width, left, right, columns);
    const y = place((event.clientY - frame.top) / frame.height, top, bottom, rows);
    $("under-pointer").textContent = x.inside && y.inside ? `here: ${number(mixed(rowValues(explanation, row), columns, y, x))}` : "here: not seen by the model";
  });
  $("stage").addEventListener("pointerleave", () => { $("under-pointer").textContent = ""; });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("input, select")) { if (event.key === "Escape") event.target.blur(); return; }
    const methods = pictures(image()).map((explanation) => explanation.method);
    const actions = {
      ArrowRight: () => stepWord(1), ArrowLeft: () => stepWord(-1), ArrowDown: () => step(1), ArrowUp: () => step(-1),
      m: () => methods.length && choose(methods[(methods.indexOf(state.method) + 1) % methods.length]),
      Escape: () => { state.kept = state.shown = null; document.activeElement.blur(); state.shown = null; refresh(); },
      "/": () => $("search").focus(),
    };
    if (!actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  });
  addEventListener("hashchange", () => {
    const [index, item] = readAddress();
    const asked = new URLSearchParams(location.hash.slice(1)).get("method");
    if (index !== state.image || (item ?? null) !== state.kept || (asked && asked !== state.method)) open(index, item);
  });
  if (data.images.length === 0) { $("count").textContent = "No photographs"; for (const part of document.querySelectorAll(".image-head, #caption-sheet, .viewer, .columns, #curves-sheet, #contact-sheet")) part.hidden = true; return; }
  fillList();
  filter();
  open(...readAddress());
  reveal();
})();
