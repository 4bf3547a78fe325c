// What is used of Linode's own package: large, and so a module of its own that is loaded on demand.

import * as whole from '@linode/api-v4';

/** Its own type files import each other in a way that Node's rules do not follow. */
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

/** What its HTTP client hands to whatever carries the request. */
export interface CarriedRequest {
  readonly url?: string;
  readonly method?: string;
  readonly params?: Readonly<Record<string, string | number>>;
  readonly data?: unknown;
  readonly headers: { toJSON(asStrings: boolean): Record<string, string> };
  adapter?: (request: CarriedRequest) => Promise<unknown>;
}

export const linode = whole as unknown as LinodePackage;
