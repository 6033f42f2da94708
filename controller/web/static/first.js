// Before the first paint: which theme, so that nothing flashes. theme.js does the rest.
(function () {
  let wanted = "auto";
  try { wanted = localStorage.getItem("operando.theme") || "auto"; } catch { /* no storage: as the system */ }
  const dark = wanted === "dark" || (wanted !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
})();
