// What a link leads to, shown beside it: on hover of a mouse, and on focus by keyboard. Escape closes it.
(() => {
  const main = document.querySelector("main");
  if (!main) return;
  const SHOWN = ".proof, .exercise, .claim, .citation, div.math, figure, dl.glossary dt";
  const WAIT = 250; // ms: a mouse that passes over a link asks for nothing
  const elsewhere = new Map();
  for (const template of document.querySelectorAll("template[data-preview]")) {
    elsewhere.set(template.dataset.preview, template);
  }
  const tip = document.createElement("div");
  tip.id = "preview";
  tip.className = "preview bd-article";
  tip.setAttribute("role", "tooltip");
  tip.hidden = true;
  main.append(tip);
  let link = null;
  let timer = 0;

  const within = (name) => {
    const target = document.getElementById(decodeURIComponent(name));
    if (!target?.matches(SHOWN)) return null;
    const parts = target.matches("figure") ? [target.querySelector("figcaption")] : [target];
    if (target.matches("dt")) parts.push(target.nextElementSibling);
    const copy = document.createDocumentFragment();
    copy.append(...parts.filter(Boolean).map((part) => part.cloneNode(true)));
    copy.querySelectorAll(".headerlink, script").forEach((extra) => extra.remove());
    copy.querySelectorAll("[id]").forEach((named) => named.removeAttribute("id"));
    copy.querySelectorAll("[tabindex]").forEach((stop) => stop.removeAttribute("tabindex"));
    copy.querySelectorAll("a").forEach((inner) => inner.replaceWith(...inner.childNodes));
    return copy;
  };

  const content = (href) => {
    const template = elsewhere.get(href);
    if (template) return template.content.cloneNode(true);
    return href.length > 1 && href.startsWith("#") ? within(href.slice(1)) : null;
  };

  const place = () => {
    const room = 8;
    const at = link.getClientRects()[0];
    if (!at) return;
    const below = window.innerHeight - at.bottom - room;
    const above = at.top - room;
    const up = below < tip.offsetHeight && above > below;
    tip.style.maxHeight = `${Math.max(up ? above : below, 80)}px`;
    tip.style.left = `${Math.max(room, Math.min(at.left, window.innerWidth - tip.offsetWidth - room))}px`;
    tip.style.top = `${up ? at.top - tip.offsetHeight : at.bottom}px`;
    tip.classList.toggle("preview-cut", tip.scrollHeight > tip.clientHeight + 1);
  };

  const hide = () => {
    clearTimeout(timer);
    link?.removeAttribute("aria-describedby");
    link = null;
    tip.hidden = true;
  };

  const show = async (wanted) => {
    const copy = content(wanted.getAttribute("href"));
    if (!copy) return;
    hide();
    link = wanted;
    tip.replaceChildren(copy);
    tip.style.maxHeight = "";
    tip.hidden = false;
    link.setAttribute("aria-describedby", tip.id);
    place();
    const unset = tip.querySelector(".math:not(:has(mjx-container))");
    if (!unset || !window.MathJax?.typesetPromise) return;
    await MathJax.typesetPromise([tip]);
    tip.querySelectorAll("[tabindex]").forEach((stop) => stop.removeAttribute("tabindex"));
    if (link === wanted) place();
  };

  const asked = (event) => event.target.closest?.(".bd-article a.reference.internal");

  document.addEventListener("pointerover", (event) => {
    if (event.pointerType !== "mouse") return;
    const over = asked(event);
    clearTimeout(timer);
    if (over && over !== link) timer = setTimeout(() => show(over), WAIT);
    else if (!over && link && !tip.contains(event.target)) timer = setTimeout(hide, WAIT);
  });
  document.addEventListener("focusin", (event) => {
    const at = asked(event);
    if (at?.matches(":focus-visible")) show(at);
  });
  document.addEventListener("focusout", hide);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
  });
  window.addEventListener("scroll", () => link && place(), { passive: true });
  window.addEventListener("beforeprint", hide);
})();
