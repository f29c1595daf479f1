/**
 * Lets the page work below a path. The `ably` client knows hosts and ports but no paths, so what it sends to the page's own
 * host gets the page's path in front: websockets and HTTP requests. At the root nothing is changed.
 */
const base = new URL('.', location.href).pathname;

/** The address of a path of this gateway. */
export function gatewayUrl(path: string): string {
  return new URL(path.replace(/^\//, ''), new URL(base, location.href)).href;
}

function placed(address: string | URL): string | URL {
  const url = new URL(address, location.href);
  if (url.host !== location.host || url.pathname.startsWith(base)) return address;
  url.pathname = base + url.pathname.slice(1);
  return url.href;
}

function placeRequests(): void {
  const { fetch: send, WebSocket: Socket } = window;
  window.fetch = (input, init) => send(input instanceof Request ? input : placed(input), init);
  window.WebSocket = class extends Socket {
    constructor(url: string | URL, protocols?: string | string[]) {
      super(placed(url), protocols);
    }
  };
  const open = XMLHttpRequest.prototype.open as (this: XMLHttpRequest, ...given: unknown[]) => void;
  XMLHttpRequest.prototype.open = function (this: XMLHttpRequest, method: string, url: string | URL, ...rest: unknown[]) {
    open.call(this, method, placed(url), ...(rest.length > 0 ? rest : [true]));
  };
}

if (base !== '/') placeRequests();
