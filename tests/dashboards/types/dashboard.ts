// What a dashboard of this project may hold, in Grafana's own types (@grafana/schema), made strict: each kind of panel
// has the options and field settings of its own plugin, and a field that is not in the types is an error.
import type { Dashboard, DataQuery, FieldConfig, Panel, RowPanel, TableFieldOptions, VariableModel } from "@grafana/schema";
import type { Options as BarGauge } from "@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen";
import type { Options as Stat } from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type { Options as Table } from "@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen";
import type { Options as Text } from "@grafana/schema/dist/esm/raw/composable/text/panelcfg/x/TextPanelCfg_types.gen";
import type {
  FieldConfig as GraphField,
  Options as Graph,
} from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

// JSON has an enumeration's values, where TypeScript has the enumeration.
type Json<T> = unknown extends T
  ? T
  : T extends string
    ? `${T}`
    : T extends number
      ? `${T}` extends `${infer N extends number}` ? N : number
      : T extends (infer Item)[]
        ? Json<Item>[]
        : T extends object
          ? { [Name in keyof T]: Json<T[Name]> }
          : T;

// The schema leaves a Prometheus query open; these are the data source's own names for what is used here.
interface Query extends DataQuery {
  datasource: { type: "prometheus"; uid: "${datasource}" };
  editorMode: "code";
  expr: string;
  format?: "table";
  instant: boolean;
  legendFormat?: string;
  range: boolean;
}

type Fields<Custom> = Omit<FieldConfig, "custom"> & { custom?: Partial<Custom> };

type Kind<Type extends string, Options, Custom = Record<string, never>> = Omit<
  Panel,
  "type" | "options" | "fieldConfig" | "targets"
> & {
  type: Type;
  options: Options;
  fieldConfig: Omit<NonNullable<Panel["fieldConfig"]>, "defaults"> & { defaults: Fields<Custom> };
  targets?: Query[];
};

type AnyPanel =
  | Kind<"stat", Stat>
  | Kind<"timeseries", Graph, GraphField>
  | Kind<"table", Table, TableFieldOptions>
  | Kind<"bargauge", BarGauge>
  | (Omit<Panel, "type" | "options" | "targets"> & { type: "text"; options: Text })
  | RowPanel;

// The schema does not know `definition`; Grafana's list of variables shows it.
type Variable = VariableModel & { definition?: string };

export type Strict = Json<
  Omit<Dashboard, "panels" | "templating"> & { panels: AnyPanel[]; templating: { list: Variable[] } }
>;
