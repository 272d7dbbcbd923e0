"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const canvas = document.getElementById("canvas"), pen = canvas.getContext("2d");
  const play = document.getElementById("play"), slider = document.getElementById("frame"), at = document.getElementById("at");
  const turn = (25 * Math.PI) / 180, tilt = (10 * Math.PI) / 180;
  const ink = () => getComputedStyle(document.body).color;
  slider.max = data.raw.length - 1;

  // Third axis up; seen a little from the side and from above.
  const flat = ([x, y, z]) => [x * Math.cos(turn) - y * Math.sin(turn), z * Math.cos(tilt) + (x * Math.sin(turn) + y * Math.cos(turn)) * Math.sin(tilt)];
  const clips = [data.raw, data.released].map((clip) => clip.map((frame) => frame.map(flat)));
  const all = clips.flat(2), span = (k) => [Math.min(...all.map((p) => p[k])), Math.max(...all.map((p) => p[k]))];
  const [xs, ys] = [span(0), span(1)], half = canvas.width / 2;
  const scale = Math.min((half - 40) / Math.max(1, xs[1] - xs[0]), (canvas.height - 60) / Math.max(1, ys[1] - ys[0]));

  function draw() {
    const frame = Number(slider.value);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    clips.forEach((clip, side) => {
      const place = ([x, y]) => [half * side + half / 2 + (x - (xs[0] + xs[1]) / 2) * scale, canvas.height / 2 + 10 - (y - (ys[0] + ys[1]) / 2) * scale];
      pen.strokeStyle = side ? "#D55E00" : "#2E8BC8";
      pen.lineWidth = 4;
      pen.lineCap = "round";
      data.edges.forEach(([a, b]) => {
        pen.beginPath();
        pen.moveTo(...place(clip[frame][a]));
        pen.lineTo(...place(clip[frame][b]));
        pen.stroke();
      });
      pen.fillStyle = ink();
      const size = (15 * canvas.width) / Math.max(1, canvas.clientWidth); // the picture is shrunk on a phone, its words are not
      pen.font = `${size}px system-ui, sans-serif`;
      pen.fillText(side ? "released" : "raw", half * side + 12, size + 6);
    });
    at.textContent = `${frame + 1} of ${data.raw.length}`;
  }

  let timer = null;
  function toggle() {
    if (timer) { clearInterval(timer); timer = null; } else {
      timer = setInterval(() => { slider.value = (Number(slider.value) + 1) % data.raw.length; draw(); }, 1000 / data.rate);
    }
    play.textContent = timer ? "Pause" : "Play";
  }
  play.addEventListener("click", toggle);
  slider.addEventListener("input", draw);
  draw();
  if (!window.matchMedia("(prefers-reduced-motion: reduce)").matches) toggle();
})();
