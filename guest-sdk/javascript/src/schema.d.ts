/**
 * What turns a parsed JSON value into a typed one: a schema of any library that implements https://standardschema.dev (valibot,
 * zod, …), or a function that returns the typed value or throws.
 */
export type Schema<T> = StandardSchema<T> | ((value: unknown) => T);

/** The part of Standard Schema that is used here. */
export interface StandardSchema<T> {
  readonly "~standard": {
    readonly version: 1;
    readonly vendor: string;
    readonly validate: (value: unknown) => StandardResult<T> | Promise<StandardResult<T>>;
    readonly types?: { readonly input: unknown; readonly output: T } | undefined;
  };
}

type StandardResult<T> =
  { readonly value: T; readonly issues?: undefined } | { readonly issues: ReadonlyArray<StandardIssue> };

interface StandardIssue {
  readonly message: string;
  readonly path?: ReadonlyArray<PropertyKey | { readonly key: PropertyKey }> | undefined;
}
