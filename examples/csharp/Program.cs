// Submit one image and print its verdict. Needs .NET 8 and no packages.
// Usage: dotnet run -- IMAGE RECIPE PART_ID     (LINEWATCH_URL, LINEWATCH_API_KEY)

using System.Net;
using System.Net.Http.Headers;
using System.Text.Json;

const int Tries = 10;
var (image, recipe, partId) = (args[0], args[1], args[2]);
var root = Environment.GetEnvironmentVariable("LINEWATCH_URL") ?? "http://127.0.0.1:8000";
using var http = new HttpClient { Timeout = TimeSpan.FromSeconds(90) };
if (Environment.GetEnvironmentVariable("LINEWATCH_API_KEY") is { Length: > 0 } apiKey)
    http.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", apiKey);

// The key is the same for every try, so the image is inspected once.
var key = Guid.NewGuid().ToString();
using var accepted = await Send(() =>
{
    var form = new MultipartFormDataContent
    {
        { new StringContent(recipe), "recipe" },
        { new StringContent(partId), "part_id" },
        { new StreamContent(File.OpenRead(image)), "image", Path.GetFileName(image) },
    };
    var request = new HttpRequestMessage(HttpMethod.Post, $"{root}/v1/inspections") { Content = form };
    request.Headers.Add("Idempotency-Key", key);
    return request;
});

var id = accepted.RootElement.GetProperty("id").GetString();
using var result = await Send(() => new HttpRequestMessage(HttpMethod.Get, $"{root}/v1/inspections/{id}?wait=60"));
Console.WriteLine(result.RootElement.GetProperty("effective_verdict").GetString());

// A request and its content can be sent only once, so each try makes a new one.
async Task<JsonDocument> Send(Func<HttpRequestMessage> make)
{
    for (var attempt = 0; attempt < Tries; attempt++)
    {
        var pause = TimeSpan.FromSeconds(Math.Min(Math.Pow(2, attempt), 30));
        try
        {
            using var request = make();
            using var answer = await http.SendAsync(request);
            var body = await answer.Content.ReadAsStringAsync();
            if (answer.IsSuccessStatusCode)
                return JsonDocument.Parse(body);
            var retryAfter = answer.Headers.RetryAfter?.Delta;
            var isTemporary = answer.StatusCode is HttpStatusCode.RequestTimeout or HttpStatusCode.BadGateway
                or HttpStatusCode.GatewayTimeout;
            if (retryAfter is null && !isTemporary)
                throw new InvalidOperationException($"refused: {body}");
            pause = retryAfter ?? pause;
        }
        catch (Exception error) when (error is HttpRequestException or TaskCanceledException)
        {
            Console.Error.WriteLine($"no answer, trying again: {error.Message}");
        }
        await Task.Delay(pause);
    }
    throw new InvalidOperationException("no answer");
}
