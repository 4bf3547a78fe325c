// The part of Linode's package that is used. It is large, so this module is loaded on demand.

import * as whole from '@linode/api-v4';

/** The package's type files import each other in a way that Node does not resolve. */
export interface LinodePackage {
  readonly baseRequest: {
    readonly interceptors: {
      readonly request: { use(intercept: (config: CarriedRequest) => CarriedRequest): number };
    };
  };
  getDomains(page: PageQuery, filter: unknown): Promise<unknown>;
  getDomainRecords(domainId: number, page: PageQuery): Promise<unknown>;
  createDomainRecord(domainId: number, record: Readonly<Record<string, unknown>>): Promise<unknown>;
  deleteDomainRecord(domainId: number, recordId: number): Promise<unknown>;
}

export interface PageQuery {
  readonly page: number;
  readonly page_size: number;
}

/** What the package's HTTP client passes to the adapter that sends a request. */
export interface CarriedRequest {
  readonly url?: string;
  readonly method?: string;
  readonly params?: Readonly<Record<string, string | number>>;
  readonly data?: unknown;
  readonly headers: { toJSON(asStrings: boolean): Record<string, string> };
  adapter?: (request: CarriedRequest) => Promise<unknown>;
}

export const linode = whole as unknown as LinodePackage;
