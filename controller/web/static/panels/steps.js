// The timeline: every step, as wide as it is long, with what runs now and for how long still.

import { byId, h, keyed, setAttr, setText } from "../dom.js";
import * as format from "../format.js";

const LEAST_SHARE = 0.045;

export function steps(model) {
  const list = byId("timeline");
  const draw = () => {
    const plan = model.state("run/plan");
    const all = plan.v?.steps ?? [];
    const lost = model.old();
    const elapsed = model.last("run/elapsed");
    const began = plan.v?.began_lab_s ?? 0;
    const top = all.filter((step) => !step.depth);
    const long = top.map((step) => lasts(step, began, elapsed));
    const total = long.reduce((sum, one) => sum + one, 0) || 1;
    setAttr(list, "data-stale", lost);
    keyed(list, top.map((step, i) => ({ step, share: Math.max(LEAST_SHARE, long[i] / total) })), ({ step }) => step.path,
      () => h("li", {}, h("div.bar", { "aria-hidden": "true" }, h("i", {})), h("span.name", {}), h("span.when", {})),
      (element, { step, share }) => {
        const state = lost && step.state === "running" ? "unknown" : kind(step);
        setAttr(element, "data-state", state);
        if (step.state === "running" && !lost) setAttr(element, "aria-current", "step");
        else element.removeAttribute("aria-current");
        element.style.setProperty("--share", share.toFixed(4));
        const part = part_of(step, began, elapsed);
        element.querySelector(".bar i").style.width = part == null ? "" : `${(part * 100).toFixed(1)}%`;
        setText(element.querySelector(".name"), `${step.number}.\u00a0${name(step, all)}`);
        setText(element.querySelector(".when"), when(step, state, began, elapsed));
      });
  };
  model.when(["state:run/*", "states", "link", "host"], draw);
}

function kind(step) {
  if (step.state === "cut short") return "failed";
  return step.state;
}

/** Return the title; what stands inside a parallel or repeated step, joined. */
function name(step, all) {
  const inside = all.filter((one) => one.depth === (step.depth ?? 0) + 1 && one.path.startsWith(`${step.path}.`));
  if (!inside.length) return step.title || step.do;
  const turn = step.times ? `${step.turn ?? 0} of ${step.times} times: ` : "";
  return turn + inside.map((one) => one.title || one.do).join(step.do === "parallel" ? " + " : ", ");
}

function lasts(step, began, elapsed) {
  if (step.ended_lab_s != null && step.begun_lab_s != null) return step.ended_lab_s - step.begun_lab_s;
  const so_far = step.begun_lab_s != null && elapsed != null ? elapsed - (step.begun_lab_s - began) : 0;
  return Math.max(step.estimate_s ?? 60, so_far);
}

function part_of(step, began, elapsed) {
  if (step.state !== "running" || step.begun_lab_s == null || elapsed == null || !step.estimate_s) return null;
  return Math.min(0.97, Math.max(0.02, (elapsed - (step.begun_lab_s - began)) / step.estimate_s));
}

function when(step, state, began, elapsed) {
  if (state === "done" || state === "failed") {
    const took = step.ended_lab_s != null && step.begun_lab_s != null ? format.duration(step.ended_lab_s - step.begun_lab_s) : "";
    return state === "done" ? `done, ${took}` : `cut short${took ? `, ${took}` : ""}`;
  }
  if (state === "skipped") return "skipped";
  if (state === "unknown") return "not known";
  if (state === "running" && step.begun_lab_s != null && elapsed != null) {
    const so_far = elapsed - (step.begun_lab_s - began);
    return step.estimate_s ? `${format.duration(so_far)} of ${format.duration(step.estimate_s)}` : `${format.duration(so_far)} so far`;
  }
  return step.estimate_s ? `about ${format.duration(step.estimate_s)}` : "waiting";
}
