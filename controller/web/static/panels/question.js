// A question that waits for a person: shown, never answered from here.

import { byId, h, setText } from "../dom.js";
import * as format from "../format.js";

export function question(model) {
  const section = byId("question");
  const draw = () => {
    section.hidden = model.questions.length === 0;
    if (section.hidden) return;
    byId("question-text").replaceChildren(...model.questions.map((asked) => h("div", {},
      h("p", {}, h("strong", {}, asked.text)),
      h("p", {}, `${(asked.choices ?? []).length ? `Answers: ${asked.choices.join(", ")}. ` : ""}`,
        asked.expires ? `Without an answer by ${format.clock(asked.expires)}: ${asked.default ?? "nothing"}. ` : "",
        "At the station: ", h("code", {}, asked.answer ?? `operando answer ${asked.id} ...`)))));
    setText(byId("speak"), `A question waits: ${model.questions[0].text}`);
  };
  model.when(["questions"], draw);
}
