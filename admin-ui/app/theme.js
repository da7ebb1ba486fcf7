// Before anything is painted: the theme that was chosen here, else the system's. No module, so that nothing flashes.
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const chosen = () => {
    try {
      return localStorage.getItem("theme");
    } catch {
      return null; // Storage may be closed to us; the system's theme will do.
    }
  };
  const apply = () => {
    document.documentElement.dataset.theme = chosen() ?? (dark.matches ? "dark" : "light");
    dispatchEvent(new Event("theme"));
  };
  apply();
  dark.addEventListener("change", apply);
  addEventListener("theme-choose", (event) => {
    try {
      if (event.detail) localStorage.setItem("theme", event.detail);
      else localStorage.removeItem("theme");
    } catch {
      document.documentElement.dataset.theme = event.detail;
      return;
    }
    apply();
  });
})();
