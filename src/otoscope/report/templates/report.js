"use strict";
// Links pictures to sound: a click on a time plays from there, a line shows where the sound is. All of it is extra:
// without scripts the players and the pictures work as they are.
(() => {
  const audio = (id) => document.getElementById("sound-" + id);
  let stopAt = null; // [player, seconds] while only a span is to be heard

  const play = (id, from, to) => {
    const player = audio(id);
    if (!player) return;
    const begin = () => {
      player.currentTime = from;
      stopAt = to === undefined ? null : [player, to];
      player.play().catch(() => {});
    };
    if (player.readyState > 0) begin();
    else { player.addEventListener("loadedmetadata", begin, { once: true }); player.load(); }
  };

  const heads = []; // {player, element, panel}
  document.querySelectorAll(".plots[data-sound]").forEach((plots) => {
    const id = plots.dataset.sound;
    plots.querySelectorAll(".plot").forEach((plot) => {
      JSON.parse(plot.dataset.panels).forEach((panel) => {
        const seek = document.createElement("div");
        const head = document.createElement("div");
        seek.className = "seek";
        head.className = "head";
        for (const part of [seek, head]) {
          part.style.top = 100 * panel.top + "%";
          part.style.height = 100 * (panel.bottom - panel.top) + "%";
          plot.append(part);
        }
        seek.style.left = 100 * panel.left + "%";
        seek.style.width = 100 * (panel.right - panel.left) + "%";
        const time = (event) => {
          const box = seek.getBoundingClientRect();
          return panel.start + ((event.clientX - box.left) / box.width) * (panel.end - panel.start);
        };
        seek.addEventListener("mousemove", (event) => { seek.title = time(event).toFixed(2) + " s: click to play from here"; });
        seek.addEventListener("click", (event) => play(id, Math.max(0, time(event))));
        heads.push({ player: audio(id), element: head, panel });
      });
    });
  });

  const draw = () => {
    let going = false;
    for (const { player, element, panel } of heads) {
      if (!player) continue;
      const share = (player.currentTime - panel.start) / (panel.end - panel.start);
      element.style.left = 100 * (panel.left + share * (panel.right - panel.left)) + "%";
      element.classList.toggle("on", share > 0 && share <= 1);
      going = going || !player.paused;
    }
    if (stopAt && stopAt[0].currentTime >= stopAt[1]) { stopAt[0].pause(); stopAt = null; }
    if (going) requestAnimationFrame(draw);
  };
  const players = [...document.querySelectorAll("audio")];
  players.forEach((player) => {
    player.addEventListener("play", () => {
      players.forEach((other) => { if (other !== player) other.pause(); });
      requestAnimationFrame(draw);
    });
    player.addEventListener("seeked", draw);
    player.addEventListener("pause", () => { stopAt = null; });
  });

  document.querySelectorAll("[data-from]").forEach((part) => {
    const owner = part.dataset.sound ? part : part.closest("[data-sound]");
    part.addEventListener("click", () => play(owner.dataset.sound, Number(part.dataset.from), Number(part.dataset.to)));
  });

  document.querySelectorAll(".copy").forEach((button) => {
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(button.parentElement.querySelector("code").textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(button.parentElement.querySelector("code"));
        button.textContent = "Press Ctrl-C";
      }
    });
  });

  document.querySelectorAll("[data-index]").forEach((block) => {
    const rows = JSON.parse(block.querySelector("script").textContent);
    const texts = rows.map((row) => row.join(" ").toLowerCase());
    const box = block.querySelector("input"), count = block.querySelector("output"), body = block.querySelector("tbody");
    const most = 60;
    let order = rows.map((_, i) => i);
    const shown = (value) => value === null ? "–" : typeof value === "number" ? String(value).replace("-", "−") : value;
    const show = () => {
      const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
      const found = order.filter((i) => words.every((word) => texts[i].includes(word)));
      body.replaceChildren(...found.slice(0, most).map((i) => {
        const line = document.createElement("tr");
        for (const value of rows[i]) {
          const cell = line.insertCell();
          cell.textContent = shown(value);
          if (typeof value === "number") cell.className = "num";
        }
        return line;
      }));
      count.textContent = found.length + " rows" + (found.length > most ? ", the first " + most + " shown" : "");
    };
    block.querySelectorAll("thead th").forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.title = "sort";
      button.append(...head.childNodes);
      head.append(button);
      let up = false;
      button.addEventListener("click", () => {
        up = !up;
        const empty = (i) => rows[i][column] === null;
        order = order.slice().sort((a, b) => {
          if (empty(a) || empty(b)) return empty(a) - empty(b);
          const x = rows[a][column], y = rows[b][column];
          return (up ? 1 : -1) * (typeof x === "number" ? x - y : String(x).localeCompare(String(y)));
        });
        show();
      });
    });
    box.addEventListener("input", show);
    show();
  });
})();
