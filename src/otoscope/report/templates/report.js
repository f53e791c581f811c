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
})();
