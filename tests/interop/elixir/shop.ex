defmodule Shop.Till do
  @moduledoc "A GenServer that is registered by its own name or by one in a Registry."
  use GenServer

  def start(name, total), do: GenServer.start(__MODULE__, total, name: name)

  @impl true
  def init(total), do: {:ok, %{total: total, last: nil}}

  @impl true
  def handle_call({:add, n}, _from, state), do: {:reply, state.total + n, %{state | total: state.total + n, last: n}}

  def handle_call({:later, ms}, from, state) do
    Process.send_after(self(), {:answer, from}, ms)
    {:noreply, state}
  end

  def handle_call(:state, _from, state), do: {:reply, state, state}
  def handle_call(:crash, _from, _state), do: raise(ArgumentError, "no change")

  @impl true
  def handle_cast({:tell, pid}, state) do
    send(pid, {:told, state.total})
    {:noreply, state}
  end

  @impl true
  def handle_info({:answer, from}, state) do
    GenServer.reply(from, {:late, state.total})
    {:noreply, state}
  end
end

defmodule Shop do
  @moduledoc "What the stories start."

  def start_names, do: Registry.start_link(keys: :unique, name: Shop.Names)
  def via(key), do: {:via, Registry, {Shop.Names, key}}

  @doc "A Python process below an Elixir supervisor."
  def start_worker(node), do: {:ok, Node.spawn_link(node, :workers, :work, [])}

  def supervise(node) do
    child = %{id: :worker, start: {Shop, :start_worker, [node]}}
    Supervisor.start_link([child], strategy: :one_for_one, name: Shop.Supervisor)
  end

  def shout(text) do
    IO.puts(String.upcase(text))
    IO.inspect(%{done: true})
    :shouted
  end
end
