import { Listeners } from './emitter.js';

interface Closable {
  close(): Promise<void> | void;
}

/**
 * Something that components share while any of them is mounted. It is made again when a component comes back after the
 * last one had left. StrictMode and re-ordered children leave and come back at once: that keeps it.
 */
export class Holder<T extends Closable> {
  readonly #make: () => T;
  readonly changed = new Listeners<void>();
  #value: T | undefined;
  #error: unknown;
  #users = 0;

  constructor(make: () => T) {
    this.#make = make;
    this.#create();
  }

  #create(): void {
    this.#error = undefined;
    try {
      this.#value = this.#make();
    } catch (error) {
      this.#error = error;
    }
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
    return () => {
      this.#users -= 1;
      setTimeout(() => this.#closeIfUnused(), 0);
    };
  }

  #closeIfUnused(): void {
    if (this.#users > 0 || !this.#value) return;
    const value = this.#value;
    this.#value = undefined;
    void Promise.resolve(value.close()).catch(() => {});
  }
}
