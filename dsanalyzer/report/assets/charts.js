// Draws the charts of #charts, in the page's own colours: "@fetch" stands for var(--fetch).
(function () {
  "use strict";
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  function paint(value, style) {
    if (Array.isArray(value)) return value.map((item) => paint(item, style));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, paint(v, style)]));
    }
    if (typeof value === "string" && value.startsWith("@")) {
      return style.getPropertyValue("--" + value.slice(1)).trim();
    }
    return value;
  }

  function draw() {
    const style = getComputedStyle(document.documentElement);
    for (const [id, figure] of Object.entries(charts)) {
      const { data, layout } = paint(figure, style);
      Plotly.react(id, data, layout, { displayModeBar: false });
    }
  }

  // A place may change its width without the window doing so (a scroll bar, a print preview).
  const fitted = new ResizeObserver((places) => {
    for (const place of places) Plotly.Plots.resize(place.target);
  });

  draw();
  for (const id of Object.keys(charts)) fitted.observe(document.getElementById(id));
  dark.addEventListener("change", draw);
})();
