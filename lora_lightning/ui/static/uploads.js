// Sends each file by a request of its own, five at a time, and tells the page when all are there.
const AT_ONCE = 5
const ATTEMPTS = 3
const batches = {}

export default function (component) {
  const { data, parentElement, setStateValue } = component
  const find = (name) => parentElement.querySelector(name)
  const zone = find(".zone")
  const batch = (batches[data.batch] ??= { queue: [], sent: 0, given: 0, failed: [], busy: 0 })

  const show = () => {
    const left = batch.given - batch.sent - batch.failed.length
    const lost = batch.failed.length ? ` Not sent: ${batch.failed.slice(0, 5).join(", ")}` : ""
    find("progress").hidden = !batch.given
    find("progress").value = batch.given ? 1 - left / batch.given : 0
    find(".state").textContent = batch.given
      ? `${batch.sent.toLocaleString()} of ${batch.given.toLocaleString()} files are here.${lost}` : ""
  }

  const send = async (file, name) => {
    const path = name.split("/").filter(Boolean).map(encodeURIComponent).join("/")
    for (let attempt = 1; ; attempt++) {
      try {
        const answer = await fetch(`/uploads/${data.batch}/${path}`, {
          method: "PUT", body: file, headers: { [data.header]: "1" },
        })
        if (answer.ok) return
        if (answer.status < 500 || attempt === ATTEMPTS) throw new Error(await answer.text())
      } catch (error) {
        if (attempt === ATTEMPTS || error.name !== "TypeError") throw error
      }
    }
  }

  const work = async () => {
    if (batch.busy >= AT_ONCE) return
    batch.busy++
    while (batch.queue.length) {
      const { file, name } = batch.queue.shift()
      try {
        await send(file, name)
        batch.sent++
      } catch (error) {
        batch.failed.push(`${name} (${error.message})`)
      }
      show()
    }
    if (--batch.busy === 0 && batch.sent) setStateValue("done", batch.sent)
  }

  const take = (files) => {
    batch.queue.push(...files)
    batch.given += files.length
    show()
    for (let worker = 0; worker < AT_ONCE; worker++) work()
  }

  const chosen = (input) => () => {
    take([...input.files].map((file) => ({ file, name: file.webkitRelativePath || file.name })))
    input.value = ""
  }

  find(".files").onclick = () => find(".files-input").click()
  find(".folder").onclick = () => find(".folder-input").click()
  find(".files-input").onchange = chosen(find(".files-input"))
  find(".folder-input").onchange = chosen(find(".folder-input"))
  zone.ondragover = (event) => { event.preventDefault(); zone.classList.add("over") }
  zone.ondragleave = () => zone.classList.remove("over")
  zone.ondrop = async (event) => {
    event.preventDefault()
    zone.classList.remove("over")
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean)
    take((await Promise.all(entries.map(below))).flat())
  }
  show()
}

const below = async (entry) => {
  if (entry.isFile) {
    return new Promise((resolve) =>
      entry.file((file) => resolve([{ file, name: entry.fullPath }]), () => resolve([])))
  }
  const reader = entry.createReader()
  const found = []
  for (;;) {  // a reader gives a hundred at a time
    const part = await new Promise((resolve) => reader.readEntries(resolve, () => resolve([])))
    if (!part.length) return (await Promise.all(found.map(below))).flat()
    found.push(...part)
  }
}
