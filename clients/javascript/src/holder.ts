import { Listeners } from './emitter.js';

interface Closable {
  close(): Promise<void> | void;
}

/** How long something that was made for a render may wait for its effects: React may throw a render away. */
const ABANDONED_MS = 10_000;

/**
 * Something that components share while any of them is mounted. It is made again when a component comes back after the
 * last one had left. StrictMode and re-ordered children leave and come back at once: that keeps it.
 */
export class Holder<T extends Closable> {
  /** Tells `true` when there is a value for components that are mounted or about to be, `false` when it was closed. */
  readonly alive = new Listeners<boolean>();
  readonly changed = new Listeners<void>();
  readonly #make: () => T;
  #value: T | undefined;
  #error: unknown;
  #users = 0;

  constructor(make: () => T) {
    this.#make = make;
    this.#create();
    const timer: unknown = setTimeout(() => this.#closeIfUnused(), ABANDONED_MS);
    // In Node no process should wait for it.
    (timer as { unref?: () => void }).unref?.();
  }

  get value(): T | undefined {
    return this.#value;
  }

  get error(): unknown {
    return this.#error;
  }

  retain(): () => void {
    this.#users += 1;
    if (!this.#value && !this.#error) {
      this.#create();
      this.changed.emit();
    }
    this.alive.emit(true);
    return () => {
      this.#users -= 1;
      setTimeout(() => this.#closeIfUnused(), 0);
    };
  }

  #create(): void {
    this.#error = undefined;
    try {
      this.#value = this.#make();
    } catch (error) {
      this.#error = error;
    }
  }

  #closeIfUnused(): void {
    if (this.#users > 0) return;
    this.alive.emit(false);
    const value = this.#value;
    this.#value = undefined;
    this.#error = undefined;
    if (value) void Promise.resolve(value.close()).catch(() => {});
  }
}

/** The holders of one kind: components that ask for the same key of the same owner share one. */
export class Holders<T extends Closable> {
  readonly #byOwner = new WeakMap<object, Map<string, Holder<T>>>();

  get(owner: object, key: string, make: () => T): Holder<T> {
    const held = this.#byOwner.get(owner) ?? new Map<string, Holder<T>>();
    this.#byOwner.set(owner, held);
    const known = held.get(key);
    if (known) return known;
    const made = new Holder(make);
    made.alive.add((isAlive) => {
      if (isAlive && !held.has(key)) held.set(key, made);
      if (!isAlive && held.get(key) === made) held.delete(key);
    });
    held.set(key, made);
    return made;
  }
}
