// The description of the API, drawn from openapi.json without anything from outside.

import { find, make } from "./dom.js";
import { offerThemes } from "./theme.js";

const api = await (await fetch("/openapi.json")).json();
const resolve = (schema) => (schema?.$ref ? api.components.schemas[schema.$ref.split("/").pop()] : schema);

function typeOf(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(typeOf).filter((each) => each !== "null").join(" or ");
  if (schema.enum) return schema.enum.join(", ");
  if (schema.type === "array") return `list of ${typeOf(schema.items ?? { type: "values" })}`;
  if (schema.contentMediaType || schema.format === "binary") return "file";
  return schema.type ?? "any";
}

function table(caption, rows) {
  return make("table", {}, make("caption", {}, caption), make("tbody", {}, ...rows.map(([name, type, about]) =>
    make("tr", {}, make("th", { scope: "row" }, make("code", {}, name)), make("td", {}, type), make("td", {}, about)))));
}

function fields(schema) {
  const plain = resolve(schema);
  return Object.entries(plain?.properties ?? {}).map(([name, each]) => [name,
    typeOf(each) + (each.default === undefined || each.default === null ? "" : `, ${JSON.stringify(each.default)}`),
    each.description ?? ""]);
}

function operation(path, method, told) {
  const body = told.requestBody?.content["multipart/form-data"]?.schema;
  const answer = told.responses["200"]?.content?.["application/json"]?.schema;
  const refusals = Object.entries(told.responses).filter(([code]) => code !== "200")
    .map(([code, each]) => [code, each.description, ""]);
  return make("section", { className: "operation" },
    make("h3", {}, make("b", {}, method.toUpperCase()), ` ${path}`),
    make("p", {}, told.description ?? told.summary),
    body ? table("Fields of the form", fields(body)) : null,
    answer ? make("details", {}, make("summary", {}, "The answer"), table("Fields of the answer", fields(answer))) : null,
    refusals.length ? make("details", {}, make("summary", {}, "Refusals"), table("Refusals", refusals)) : null);
}

const schemas = Object.entries(api.components.schemas).filter(([name]) => !/^(Body|HTTP|Validation)/.test(name));
offerThemes();
find("curl").textContent = `curl -F image=@street.jpg -F rho=0.1 ${location.origin}/v1/detect`;
find("operations").replaceChildren(
  ...Object.entries(api.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, told]) => operation(path, method, told))),
  make("h2", {}, "Values"),
  ...schemas.map(([name, schema]) => make("section", { className: "operation" }, make("h3", {}, name),
    make("p", {}, schema.description ?? ""), table(name, fields(schema)))));
