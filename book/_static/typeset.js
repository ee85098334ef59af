// Formulas are set a few at a time, those in sight first: a page with a thousand of them stays alive meanwhile.
(() => {
  if (!window.MathJax) return; // a page without formulas
  const BATCH = 16;
  const waiting = new Set();

  const away = (box) => {
    const { top, bottom } = box.getBoundingClientRect();
    return top > innerHeight ? top - innerHeight : bottom < 0 ? -2 * bottom : 0; // what comes next before what was
  };

  const nearest = () => {
    const far = new Map([...waiting].map((box) => [box, away(box)]));
    return [...waiting].sort((a, b) => far.get(a) - far.get(b)).slice(0, BATCH);
  };

  let moved = false; // by the reader, who is then left alone until the next jump
  for (const act of ["wheel", "touchmove", "keydown", "pointerdown"]) {
    addEventListener(act, () => (moved = true), { passive: true });
  }
  addEventListener("hashchange", () => (moved = false));
  const hold = () => moved || document.querySelector(":target")?.scrollIntoView({ behavior: "instant" });

  const setAll = async () => {
    document.querySelectorAll(".math").forEach((box) => waiting.add(box));
    while (waiting.size) {
      const batch = nearest();
      await MathJax.typesetPromise(batch);
      batch.forEach((box) => waiting.delete(box));
      hold(); // formulas above the target have pushed it away
      await new Promise((resume) => setTimeout(resume)); // scrolling, keys and painting have their turn
    }
  };

  MathJax.startup = {
    typeset: false,
    ready() {
      MathJax.startup.defaultReady();
      MathJax.startup.promise = MathJax.startup.promise.then(setAll);
    },
  };
})();
