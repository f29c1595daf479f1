/** The browser's storage, where it may be used: a browser that forbids it gives a page that forgets. */

function storage(kind: 'localStorage' | 'sessionStorage') {
  const memory = new Map<string, string>();
  const real = (): Storage | undefined => {
    try {
      return window[kind];
    } catch {
      return undefined;
    }
  };
  return {
    get: (name: string): string | null => memory.get(name) ?? real()?.getItem(name) ?? null,
    set(name: string, value: string): void {
      memory.delete(name);
      try {
        const place = real();
        if (place) place.setItem(name, value);
        else memory.set(name, value);
      } catch {
        // Full.
        memory.set(name, value);
      }
    },
    remove(name: string): void {
      memory.delete(name);
      real()?.removeItem(name);
    },
  };
}

export const local = storage('localStorage');
export const tab = storage('sessionStorage');
