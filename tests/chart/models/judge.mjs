// Reads a JSON list of custom resources on stdin, and prints a JSON list of what is wrong with them.
// Two judges: the models' own schemas find wrong values, TypeScript finds fields that no model knows.
import { HTTPRoute } from "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1/HTTPRoute";
import { ScaledObject } from "@kubernetes-models/keda/keda.sh/v1alpha1/ScaledObject";
import { PodMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor";
import { PrometheusRule } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule";
import { ServiceMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor";
import ts from "typescript";

const PACKAGES = {
  HTTPRoute: "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1/HTTPRoute",
  ScaledObject: "@kubernetes-models/keda/keda.sh/v1alpha1/ScaledObject",
  PodMonitor: "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor",
  PrometheusRule: "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule",
  ServiceMonitor: "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor",
};
const MODELS = { HTTPRoute, PodMonitor, PrometheusRule, ScaledObject, ServiceMonitor };
const FILE = new URL("./rendered.ts", import.meta.url).pathname;

function wrongValues(resource) {
  try {
    new MODELS[resource.kind](resource).validate();
    return [];
  } catch (fault) {
    return [`${resource.kind} ${resource.metadata.name}: ${fault.message}`];
  }
}

function unknownFields(resources) {
  const lines = resources.map(
    ({ kind, ...fields }, index) =>
      `import type { I${kind} as T${index} } from "${PACKAGES[kind]}";\n` +
      `export const r${index}: T${index} = ${JSON.stringify({ ...fields, kind })};`,
  );
  const options = { module: ts.ModuleKind.NodeNext, moduleResolution: ts.ModuleResolutionKind.NodeNext,
    target: ts.ScriptTarget.ES2022, noEmit: true, skipLibCheck: true, strict: true, types: [], lib: ["lib.es2015.d.ts"] };
  const host = ts.createCompilerHost(options);
  const { getSourceFile, fileExists } = host;
  host.fileExists = (name) => name === FILE || fileExists(name);
  host.getSourceFile = (name, ...rest) =>
    name === FILE ? ts.createSourceFile(name, lines.join("\n"), options.target) : getSourceFile(name, ...rest);
  const found = ts.getPreEmitDiagnostics(ts.createProgram([FILE], options, host));
  return found.map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, "\n"));
}

let text = "";
for await (const piece of process.stdin) text += piece;
const resources = JSON.parse(text);
const unknown = resources.filter(({ kind }) => !(kind in MODELS)).map(({ kind }) => `${kind}: no model of it`);
const known = resources.filter(({ kind }) => kind in MODELS);
console.log(JSON.stringify([...unknown, ...known.flatMap(wrongValues), ...unknownFields(known)]));
