/** Where the person writes. Sending works at any time, also while answers stream and while there is no connection. */
import { type ClipboardEvent, type DragEvent, type FormEvent, type KeyboardEvent, type ReactNode, type Ref, useImperativeHandle, useLayoutEffect, useRef, useState } from 'react';
import { announce } from './announcer';
import { type FilePart, inKilobytes, nameOf, partOf, roomFor } from './attachments';
import { Icon } from './icons';
import { local, tab } from './storage';

export interface Composed {
  text: string;
  files: FilePart[];
  /** Stop the own running answers first. */
  interrupts: boolean;
}

export interface ComposerHandle {
  write(text: string, files?: FilePart[]): void;
  focus(): void;
}

interface Props {
  session: string;
  /** An earlier message is being rewritten. */
  editing: boolean;
  /** This person has answers running. */
  busy: boolean;
  stopping: boolean;
  /** The most bytes that one message may have. */
  limit: number;
  onSubmit: (composed: Composed) => void;
  onStop: () => void;
  onCancelEdit: () => void;
  onEditLast: () => void;
  ref: Ref<ComposerHandle>;
}

const INTERRUPT = 'interruptFirst';

/** Phones have a key for a new line, and none to hold down with it. */
const touches = matchMedia('(hover: none) and (pointer: coarse)');

export function Composer(props: Props): ReactNode {
  const { session, editing, busy, stopping, limit, onSubmit, onStop, onCancelEdit, onEditLast, ref } = props;
  const draft = `draft:${session}`;
  const [text, setText] = useState(() => tab.get(draft) ?? '');
  const [files, setFiles] = useState<FilePart[]>([]);
  const [problem, setProblem] = useState<string>();
  const [interrupts, setInterrupts] = useState(() => local.get(INTERRUPT) === '1');
  const area = useRef<HTMLTextAreaElement>(null);
  const picker = useRef<HTMLInputElement>(null);

  useImperativeHandle(ref, () => ({
    write(given, attached = []) {
      setText(given);
      setFiles(attached);
      setProblem(undefined);
      area.current?.focus();
    },
    focus: () => area.current?.focus(),
  }));
  useLayoutEffect(() => {
    if (!area.current) return;
    area.current.style.height = 'auto';
    area.current.style.height = `${area.current.scrollHeight}px`;
  }, [text]);

  const write = (now: string): void => {
    setText(now);
    if (!editing) tab.set(draft, now);
  };
  const empty = !text.trim() && files.length === 0;
  const send = (event?: FormEvent): void => {
    event?.preventDefault();
    if (empty) return;
    if (roomFor(limit, text, files) === 0) {
      setProblem(`The message is longer than the ${inKilobytes(limit)} that the gateway takes at once. Shorten it, or send it in two.`);
      return;
    }
    onSubmit({ text: text.trim(), files, interrupts: interrupts && busy });
    setText('');
    setFiles([]);
    setProblem(undefined);
    tab.remove(draft);
    area.current?.focus();
  };
  const attach = async (given: Iterable<File>): Promise<void> => {
    setProblem(undefined);
    const added = [...files];
    for (const file of given) {
      try {
        added.push(await partOf(file, roomFor(limit, text, added)));
        announce(`${file.name} attached`);
      } catch (error) {
        setProblem((error as Error).message);
      }
    }
    setFiles(added);
    area.current?.focus();
  };
  const take = (event: ClipboardEvent | DragEvent, from: DataTransfer): void => {
    if (from.files.length === 0) return;
    event.preventDefault();
    void attach([...from.files]);
  };
  const onKey = (event: KeyboardEvent): void => {
    if (event.nativeEvent.isComposing) return;
    if (event.key === 'ArrowUp' && !text && !editing) {
      event.preventDefault();
      onEditLast();
    } else if (event.key === 'Enter' && !event.shiftKey && !touches.matches) {
      event.preventDefault();
      send();
    }
  };
  const choose = (on: boolean): void => {
    setInterrupts(on);
    local.set(INTERRUPT, on ? '1' : '0');
  };
  return (
    <form className="composer" onSubmit={send} onDrop={(event) => take(event, event.dataTransfer)} onDragOver={(event) => event.preventDefault()}>
      {editing && (
        <div className="editing">
          <span>You are rewriting an earlier message. The old version is kept.</span>
          <button type="button" className="link" onClick={onCancelEdit}>
            Cancel
          </button>
        </div>
      )}
      {files.length > 0 && <Files files={files} onRemove={(file) => setFiles(files.filter((other) => other !== file))} />}
      {problem && (
        <p className="problem" role="alert">
          {problem}
        </p>
      )}
      <textarea
        ref={area}
        rows={1}
        autoFocus={!touches.matches}
        value={text}
        placeholder={busy ? 'Write on meanwhile' : 'Write a message'}
        aria-label="Message"
        aria-describedby="keys"
        onChange={(event) => write(event.target.value)}
        onPaste={(event) => take(event, event.clipboardData)}
        onKeyDown={onKey}
      />
      <div className="actions">
        <input
          ref={picker}
          type="file"
          multiple
          hidden
          data-testid="picker"
          onChange={(event) => {
            void attach([...(event.target.files ?? [])]);
            event.target.value = '';
          }}
        />
        <button
          type="button"
          className="quiet round"
          onClick={() => picker.current?.click()}
          aria-label="Attach a picture or a text file"
          title={`Pictures and text files, ${inKilobytes(roomFor(limit, '', []))} in one message. Larger pictures are made smaller.`}
        >
          <Icon name="clip" />
        </button>
        {busy && (
          <label className="switch">
            <input type="checkbox" checked={interrupts} onChange={(event) => choose(event.target.checked)} />
            <span>
              Stop <span className="only-wide">the running answer </span>first
            </span>
          </label>
        )}
        <span className="grow" />
        {busy && (
          <button type="button" className="stop" data-testid="stop" disabled={stopping} onClick={onStop} title="Esc">
            <Icon name="stop" /> {stopping ? 'Stopping…' : 'Stop'}
          </button>
        )}
        <button type="submit" className="primary round" data-testid="send" disabled={empty} aria-label={busy && interrupts ? 'Stop and send' : 'Send'} title="Enter">
          <Icon name="send" />
        </button>
      </div>
      <p id="keys" className="unseen">
        Enter sends, Shift and Enter begins a new line, Escape stops your answers, the arrow up edits your last message.
      </p>
    </form>
  );
}

function Files({ files, onRemove }: { files: FilePart[]; onRemove: (file: FilePart) => void }): ReactNode {
  return (
    <ul className="attached" aria-label="Attached files">
      {files.map((file, index) => (
        <li key={index}>
          {file.mediaType.startsWith('image/') ? <img src={file.url} alt="" /> : <Icon name="file" />}
          <span>{nameOf(file)}</span>
          <button type="button" className="quiet" onClick={() => onRemove(file)} aria-label={`Remove ${nameOf(file)}`}>
            <Icon name="close" />
          </button>
        </li>
      ))}
    </ul>
  );
}
